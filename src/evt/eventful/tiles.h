// Products of bfloat16 by a processor's matrix units (AMX), and what puts numbers in the order that these ask for.
#pragma once
#include "lanes.h"

#ifdef __AMX_BF16__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

typedef uint32_t Words __attribute__((vector_size(64), aligned(4), may_alias));
typedef Half Halves __attribute__((vector_size(32), aligned(2), may_alias));

constexpr int64_t SIDE = 32;  // what is multiplied at a time: 2 x 2 tiles of 16 x 16 sums

inline int64_t padded(int64_t n) { return (n + SIDE - 1) / SIDE * SIDE; }

// c (m x n) = a (m x k) b, added to c unless it is new. Rows of b stand in pairs, number beside number: (k / 2, n, 2).
// All sides are multiples of SIDE; a has rows of stride `a_row`, b and c of n.
inline void multiply(const Half* a, int64_t a_row, const Half* b, float* c, int64_t m, int64_t n, int64_t k, bool fresh) {
  asm volatile("" : : : "memory");  // what is multiplied has been written
  for (int64_t i = 0; i < m; i += SIDE)
    for (int64_t j = 0; j < n; j += SIDE) {
      float* const to = c + i * n + j;
      if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      } else {
        _tile_loadd(0, to, 4 * n);
        _tile_loadd(1, to + 16, 4 * n);
        _tile_loadd(2, to + 16 * n, 4 * n);
        _tile_loadd(3, to + 16 * n + 16, 4 * n);
      }
      for (int64_t l = 0; l < k; l += 32) {
        _tile_loadd(4, a + i * a_row + l, 2 * a_row);
        _tile_loadd(5, a + (i + 16) * a_row + l, 2 * a_row);
        _tile_loadd(6, b + l * n + 2 * j, 4 * n);
        _tile_loadd(7, b + l * n + 2 * j + 32, 4 * n);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, to, 4 * n);
      _tile_stored(1, to + 16, 4 * n);
      _tile_stored(2, to + 16 * n, 4 * n);
      _tile_stored(3, to + 16 * n + 16, 4 * n);
    }
  asm volatile("" : : : "memory");
}

// Rows of d numbers, one after the other, to (padded(m), padded(d)); what is beyond d and m is 0.
inline void gather(const Half* const* from, int64_t m, int64_t d, Half* to) {
  const int64_t width = padded(d);
  for (int64_t j = 0; j < m; j++, to += width) {
    int64_t i = 0;
    for (; i + 16 <= d; i += 16) std::memcpy(to + i, from[j] + i, 32);
    for (; i < width; i++) to[i] = i < d ? from[j][i] : 0;
  }
  std::memset(to, 0, 2 * width * (padded(m) - m));
}

// The transpose of 16 x 16: squares of 1, 2, 4, 8 change places.
template <int S>
inline void swap(Words* x) {
  Words low, high;  // of two rows S apart, what they have afterwards
  for (uint32_t j = 0; j < 16; j++) low[j] = j & S ? 16 + j - S : j, high[j] = j & S ? 16 + j : j + S;
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++)
    if (!(i & S)) {
      const Words a = x[i], b = x[i + S];
      x[i] = __builtin_shuffle(a, b, low), x[i + S] = __builtin_shuffle(a, b, high);
    }
}

// (m, n) to (n, m), both multiples of SIDE; rows of the result have stride `to_row`.
inline void transpose(const Half* from, int64_t m, int64_t n, Half* to, int64_t to_row) {
  for (int64_t j = 0; j < m; j += 32)
    for (int64_t i = 0; i < n; i += 16) {
      Words x[16];  // two rows that follow one another make one of words
      const Half* at = from + j * n + i;
#pragma GCC unroll 16
      for (int r = 0; r < 16; r++, at += 2 * n)
        x[r] = __builtin_convertvector(*(const Halves*)at, Words) |
               __builtin_convertvector(*(const Halves*)(at + n), Words) << 16;
      swap<1>(x), swap<2>(x), swap<4>(x), swap<8>(x);
#pragma GCC unroll 16
      for (int r = 0; r < 16; r++) *(Words*)(to + (i + r) * to_row + j) = x[r];
    }
}

// Floats that are not negative, (m, n), rounded, and rows in pairs as `multiply` asks for; (padded(m), n), the rest 0.
inline void pair(const float* from, int64_t m, int64_t n, Half* to) {
  Words* next = (Words*)to;
  for (int64_t j = 0; j < padded(m); j += 2)
    for (int64_t i = 0; i < n; i += 16, next++) {
      const float* const at = from + j * n + i;
      const Words low = j < m ? *(const Words*)at + 0x8000 : Words{};
      const Words high = j + 1 < m ? *(const Words*)(at + n) + 0x8000 : Words{};
      *next = low >> 16 | (high & 0xffff0000);
    }
}

// The same as Lanes, of halves.
class Tiles {
  Half *q, *keys, *turned, *weights;

 public:
  typedef Half Number;
  static constexpr int64_t MOST = 224;  // queries in a block
  const int64_t width, own_d, d;        // the latter is padded

  // Whether the system lets this process use them; it must be asked once.
  static bool allowed() {
    static const bool yes = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
    return yes;
  }

  // While it lives, this thread's tiles have 16 rows of 64 bytes; then what they were before: a library may rely on it.
  class Setting {
    struct alignas(64) Config {
      uint8_t palette, start, none[14];
      uint16_t bytes[16];
      uint8_t rows[16];
    } before;
    const bool used;

   public:
    explicit Setting(bool used) : used(used) {
      if (!used) return;
      _tile_storeconfig(&before);
      Config own = {};
      own.palette = 1;
      for (int i = 0; i < 8; i++) own.bytes[i] = 64, own.rows[i] = 16;
      asm volatile("" : : "r"(&own) : "memory");
      _tile_loadconfig(&own);
    }
    ~Setting() {
      if (!used) return;
      if (before.palette)
        _tile_loadconfig(&before);
      else
        _tile_release();
    }
  };

  Tiles(int64_t n, int64_t d, Memory& memory)
      : width(padded(n)), own_d(d), d(padded(d)) {
    q = memory.part<Half>(this->d * width), keys = memory.part<Half>(KEYS * this->d);
    turned = memory.part<Half>(KEYS * this->d), weights = memory.part<Half>(KEYS * width);
    std::memset(q, 0, sizeof(Half) * this->d * width);
  }

  void query(int64_t i, const Half* from) {
    for (int64_t j = 0; j < own_d; j++) q[(j / 2 * width + i) * 2 + j % 2] = from[j];
  }

  void products(const Half* const* from, int64_t m, float* scores) {
    gather(from, m, own_d, keys);
    multiply(keys, d, q, scores, padded(m), width, d, true);
  }

  void add(const Half* const* from, int64_t m, const float* own, float* o) {
    gather(from, m, own_d, keys);
    transpose(keys, padded(m), d, turned, KEYS);
    pair(own, m, width, weights);
    multiply(turned, KEYS, weights, o, d, width, padded(m), false);
  }
};

}  // namespace

#else

namespace {

// There are none.
struct Tiles : Lanes<Half, WIDE> {
  using Lanes::Lanes;
  static constexpr int64_t MOST = width;
  static bool allowed() { return false; }
  struct Setting {
    explicit Setting(bool) {}
  };
};

}  // namespace
#endif
