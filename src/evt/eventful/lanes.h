// Vectors of floats, and products by them; see attention.cpp.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 8;  // of a tile; its sums fill the registers
#else
constexpr int LANES = 8, ROWS = 4;
#endif
constexpr int WIDE = 3;    // vectors of queries in a block
constexpr int KEYS = 128;  // keys at a time: their scores stay in the first cache

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t Half;  // a bfloat16: the upper half of a float

inline float number(float x) { return x; }
inline float number(Half x) {
  const uint32_t bits = (uint32_t)x << 16;
  float to;
  std::memcpy(&to, &bits, 4);
  return to;
}

inline void put(float& to, float x) { to = x; }
inline void put(Half& to, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  to = std::isnan(x) ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline Vec load(const float* x) { return *(const Vec*)x; }
inline Vec load(const Half* x) {
  typedef Half Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
  return (Vec)(__builtin_convertvector(*(const Halves*)x, Ints) << 16);
}

// A thread's, for one block after the other; each part begins on a line of the cache.
class Memory {
  std::vector<std::vector<char>> parts;
  size_t next = 0;

 public:
  void clear() { next = 0; }
  template <class T>
  T* part(int64_t n) {
    if (next == parts.size()) parts.emplace_back();
    std::vector<char>& own = parts[next++];
    if (own.size() < n * sizeof(T) + 63) own.resize(n * sizeof(T) + 63);
    return (T*)(((uintptr_t)own.data() + 63) & ~(uintptr_t)63);
  }
};

// Products of up to N vectors of queries with keys and of their weights with values, tokens of T.
template <class T, int N>
class Lanes {
  float *q, *rows[KEYS];

  // Tokens as floats.
  const float* const* floats(const T* const* x, int64_t m) {
    if constexpr (std::is_same_v<T, float>) return x;
    for (int64_t j = 0; j < m; j++) {
      int64_t i = 0;
      for (; i + LANES <= d; i += LANES) *(Vec*)(rows[j] + i) = load(x[j] + i);
      for (; i < d; i++) rows[j][i] = number(x[j][i]);
    }
    return rows;
  }

  static Vec& at(float* x, int64_t row, int part) { return ((Vec*)(x + row * width))[part]; }

  template <int R>
  void tile(const float* const* keys, float* scores) {
    Vec sum[R][N] = {};
    for (int64_t i = 0; i < d; i++)
#pragma GCC unroll 8
      for (int r = 0; r < R; r++)
        for (int p = 0; p < N; p++) sum[r][p] += keys[r][i] * at(q, i, p);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      for (int p = 0; p < N; p++) at(scores, r, p) = sum[r][p];
  }

  // R numbers of all values, from the i'th.
  template <int R>
  void tile(const float* const* values, int64_t m, int64_t i, float* weights, float* o) {
    Vec sum[R][N];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      for (int p = 0; p < N; p++) sum[r][p] = at(o, i + r, p);
    for (int64_t j = 0; j < m; j++)
#pragma GCC unroll 8
      for (int r = 0; r < R; r++)
        for (int p = 0; p < N; p++) sum[r][p] += values[j][i + r] * at(weights, j, p);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      for (int p = 0; p < N; p++) at(o, i + r, p) = sum[r][p];
  }

 public:
  typedef T Number;
  static constexpr int64_t width = N * LANES;
  const int64_t d;

  // Of at most `width` queries.
  Lanes(int64_t, int64_t d, Memory& memory) : q(memory.part<float>(d * width)), d(d) {
    std::memset(q, 0, sizeof(float) * d * width);
    if constexpr (!std::is_same_v<T, float>) {
      float* const all = memory.part<float>(KEYS * d);
      for (int j = 0; j < KEYS; j++) rows[j] = all + j * d;
    }
  }

  // The i'th query.
  void query(int64_t i, const T* from) {
    for (int64_t j = 0; j < d; j++) q[j * width + i] = number(from[j]);
  }

  // scores (m, width) = keys (m, d) q; of at most KEYS keys.
  void products(const T* const* keys, int64_t m, float* scores) {
    const float* const* x = floats(keys, m);
    int64_t j = 0;
    for (; j + ROWS <= m; j += ROWS) tile<ROWS>(x + j, scores + j * width);
    for (; j < m; j++) tile<1>(x + j, scores + j * width);
  }

  // o (d, width) += the transpose of values (m, d), times weights (m, width).
  void add(const T* const* values, int64_t m, float* weights, float* o) {
    const float* const* x = floats(values, m);
    int64_t i = 0;
    for (; i + ROWS <= d; i += ROWS) tile<ROWS>(x, m, i, weights, o);
    for (; i < d; i++) tile<1>(x, m, i, weights, o);
  }
};

}  // namespace
