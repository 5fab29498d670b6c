// Self-attention of many windows and heads in one call, and its update where some keys changed; see kernel.py.
//
// Queries stand in the lanes of vectors: a block of them is (d x queries), their scores (keys x queries). So what
// relative positions add to a key's scores is a vector for its row and one for its column, and maxima and sums over
// keys need no shuffling. What a block multiplies by is in lanes.h, or in tiles.h where the processor has matrix units.
// All powers are of 2.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "lanes.h"
#include "tiles.h"

namespace {

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }  // b where a is NaN

// 2^x to 2 units of the last place; x below -126 gives 0, above 127 infinity. NaN stays.
inline Vec exp2(Vec x) {
  const Vec shifted = x + 12582912.0f;  // 1.5 * 2^23: the whole part stands in the last bits
  const Vec f = x - (shifted - 12582912.0f);
  // Of degree 5 with the least relative error, 7.5e-8, on -1/2 to 1/2 (Lawson's weighted least squares).
  Vec p = 0.00132764725f * f + 0.00967554096f;
  p = p * f + 0.0555071309f;
  p = p * f + 0.240221202f;
  p = p * f + 0.693146944f;
  p = p * f + 1.0f;
  const Ints whole = (Ints)shifted << 23;
  const Vec power = (Vec)((Ints)p + whole);
  return x < -126.0f ? Vec{} : (x < 127.0f ? power : x * std::numeric_limits<float>::infinity());
}

// What is added to scores for one coordinate of a query and a key: a place in their grid, divided, and its remainder.
struct Term {
  const float* table;  // (n, d, stride), which queries are multiplied by; or (H, n, m) as they are
  int64_t pairs;       // the latter
  int64_t stride;      // m, filled up to whole vectors
  int64_t m, n;        // coordinates of keys, and of queries
  int64_t query_by, query_to, key_by, key_to;
};

// Tokens of one kind: queries, keys, values or results, somewhere in memory, floats or halves; log-sum-exps are floats.
struct Tokens {
  void* data;
  int64_t head, token;  // strides
};

struct Call {
  int64_t heads, groups, d, n_terms;
  float scale;
  const int64_t *query_at, *query_begin;  // where queries stand; where those of a group begin, groups + 1
  const int64_t *query_place;             // in the grid
  const int64_t *key_at, *key_begin;      // the same of keys; -1 is padding
  const int64_t *key_place;               // of all keys of the call; or null, where they are all of the grid in order
  Tokens q, k, v, out, lse;               // of lse the second stride is 1
  const void *pad_k, *pad_v;              // (H, d)
  Term terms[2];
  // For an update, k and v are those of the call's keys alone, in order, and these what they were.
  Tokens old_k, old_v;
  uint8_t* lost;  // (H, Q)
  float kept;
};

// A block of queries of one head, and what is kept of them while keys pass. `Products` is Lanes or Tiles.
template <class Products>
struct Block {
  typedef typename Products::Number T;
  const Call& call;
  int64_t h, first, n;           // head, the first query of the call, how many
  const int32_t* const* places;  // of all keys of the call, for each term
  Products with;
  const int64_t width;  // in queries, whole vectors
  const float factor;   // of products
  float *o, *scores, *terms[2];

  Block(const Call& call, int64_t h, int64_t first, int64_t n, const int32_t* const* places, Memory& memory)
      : call(call), h(h), first(first), n(n), places(places), with(n, call.d, memory), width(with.width),
        factor(call.scale * LOG2_E), o(memory.part<float>(with.d * width)), scores(memory.part<float>(KEYS * width)) {
    for (int64_t i = 0; i < n; i++) with.query(i, row<T>(call.q, call.query_at[first + i]));
    float* const query = memory.part<float>(call.d);
    for (int t = 0; t < call.n_terms; t++) {
      const Term& term = call.terms[t];
      terms[t] = memory.part<float>(term.m * width);
      float* const sums = memory.part<float>(term.stride);
      std::fill(terms[t], terms[t] + term.m * width, 0.0f);
      for (int64_t i = 0; i < n; i++) {
        const int64_t at = call.query_place[first + i] / term.query_by % term.query_to;
        const float* added = term.table + (h * term.n + at) * term.m;
        if (!term.pairs) {
          const T* const from = row<T>(call.q, call.query_at[first + i]);
          for (int64_t j = 0; j < call.d; j++) query[j] = number(from[j]);
          products(query, term.table + at * call.d * term.stride, call.d, term.stride, sums);
          added = sums;
        }
        for (int64_t j = 0; j < term.m; j++) terms[t][j * width + i] = LOG2_E * added[j];
      }
    }
  }

  // to (V vectors) = a (d) times b (d, stride).
  template <int V>
  static void product(const float* a, const float* b, int64_t d, int64_t stride, float* to) {
    Vec sum[4][V] = {};  // of every fourth, so that one need not wait for the other
    int64_t i = 0;
    for (; i + 4 <= d; i += 4)
#pragma GCC unroll 4
      for (int r = 0; r < 4; r++)
        for (int p = 0; p < V; p++) sum[r][p] += a[i + r] * ((const Vec*)(b + (i + r) * stride))[p];
    for (; i < d; i++)
      for (int p = 0; p < V; p++) sum[0][p] += a[i] * ((const Vec*)(b + i * stride))[p];
    for (int p = 0; p < V; p++) ((Vec*)to)[p] = sum[0][p] + sum[1][p] + (sum[2][p] + sum[3][p]);
  }

  // What a query is multiplied by for one of its coordinates: (d, stride).
  static void products(const float* query, const float* table, int64_t d, int64_t stride, float* to) {
    for (int64_t left = stride; left;) {
      const int64_t j = stride - left, vectors = std::min<int64_t>(left / LANES, 3);
      (vectors == 3 ? product<3> : vectors == 2 ? product<2> : product<1>)(query, table + j, d, stride, to + j);
      left -= vectors * LANES;
    }
  }

  template <class X>
  X* row(const Tokens& x, int64_t i) const {
    return (X*)x.data + h * x.head + i * x.token;
  }

  Vec& at(float* x, int64_t row, int64_t part) const { return *(Vec*)(x + row * width + part * LANES); }

  // The j'th score that was multiplied; its key is so many'th of the call.
  Vec score(int64_t j, int64_t key, int64_t part) const {
    Vec sum = at(scores, j, part) * factor;
    for (int t = 0; t < call.n_terms; t++) sum += at(terms[t], places[t][key], part);
    return sum;
  }

  // Writes o times a factor of each query.
  void write(const std::vector<float>& factor) {
    for (int64_t i = 0; i < n; i++) {
      T* to = row<T>(call.out, call.query_at[first + i]);
      for (int64_t j = 0; j < call.d; j++) put(to[j], o[j * width + i] * factor[i]);
    }
  }

  void attend(int64_t begin, int64_t end) {
    std::vector<float> most(width, std::numeric_limits<float>::lowest()), total(width, 0.0f), factors(n);
    std::memset(o, 0, sizeof(float) * with.d * width);
    const T *keys[KEYS], *values[KEYS];
    for (int64_t key = begin; key < end; key += KEYS) {
      const int64_t m = std::min<int64_t>(KEYS, end - key);
      for (int64_t j = 0; j < m; j++) {
        const int64_t token = call.key_at[key + j];
        keys[j] = token < 0 ? (const T*)call.pad_k + h * call.d : row<T>(call.k, token);
        values[j] = token < 0 ? (const T*)call.pad_v + h * call.d : row<T>(call.v, token);
      }
      with.products(keys, m, scores);
      for (int64_t p = 0; p < width / LANES; p++) {
        const Vec before = at(most.data(), 0, p);
        Vec now = before;
        for (int64_t j = 0; j < m; j++) now = larger(at(scores, j, p) = score(j, key + j, p), now);
        const Vec less = exp2(before - now);
        Vec sum = at(total.data(), 0, p) * less;
        for (int64_t j = 0; j < m; j++) sum += at(scores, j, p) = exp2(at(scores, j, p) - now);
        for (int64_t i = 0; i < call.d; i++) at(o, i, p) *= less;
        at(most.data(), 0, p) = now, at(total.data(), 0, p) = sum;
      }
      with.add(values, m, scores, o);
    }
    for (int64_t i = 0; i < n; i++) {
      factors[i] = 1 / total[i];
      if (call.lse.data) *row<float>(call.lse, call.query_at[first + i]) = LN_2 * (most[i] + std::log2(total[i]));
    }
    write(factors);
  }

  // Adds to o the values of some keys, as they count by the log-sum-exp that is kept, and to total how much they count.
  void replace(const Tokens& k, const Tokens& v, int64_t begin, int64_t end, float* lse, float* total) {
    const T *keys[KEYS], *values[KEYS];
    for (int64_t key = begin; key < end; key += KEYS) {
      const int64_t m = std::min<int64_t>(KEYS, end - key);
      for (int64_t j = 0; j < m; j++) keys[j] = row<T>(k, key + j), values[j] = row<T>(v, key + j);
      with.products(keys, m, scores);
      for (int64_t p = 0; p < width / LANES; p++) {
        const Vec less = at(lse, 0, p);
        Vec sum = at(total, 0, p);
        for (int64_t j = 0; j < m; j++) sum += at(scores, j, p) = exp2(score(j, key + j, p) - less);
        at(total, 0, p) = sum;
      }
      with.add(values, m, scores, o);
    }
  }

  void update(int64_t begin, int64_t end) {
    std::vector<float> lse(width, 0.0f), taken(width, 0.0f), given(width, 0.0f), factors(n);
    for (int64_t i = 0; i < n; i++) lse[i] = LOG2_E * *row<float>(call.lse, call.query_at[first + i]);
    std::memset(o, 0, sizeof(float) * with.d * width);
    replace(call.old_k, call.old_v, begin, end, lse.data(), taken.data());
    for (int64_t i = 0; i < call.d * width; i++) o[i] = -o[i];
    replace(call.k, call.v, begin, end, lse.data(), given.data());
    for (int64_t i = 0; i < n; i++) {
      const float kept = 1 - taken[i], z = kept + given[i];
      call.lost[h * call.query_begin[call.groups] + first + i] = !(kept > call.kept && std::isfinite(z));
      const int64_t token = call.query_at[first + i];
      const T* before = row<T>(call.out, token);
      for (int64_t j = 0; j < call.d; j++) o[j * width + i] += number(before[j]);
      factors[i] = 1 / z;
      *row<float>(call.lse, token) += std::log(z);
    }
    write(factors);
  }
};

// Some queries of a group, in one head.
struct Piece {
  int64_t h, group, first, n;
};

template <class Products>
void run(const Call& call, const Piece& piece, const int32_t* const* places, Memory& memory) {
  memory.clear();
  Block<Products> block(call, piece.h, piece.first, piece.n, places, memory);
  const int64_t begin = call.key_begin[piece.group], end = call.key_begin[piece.group + 1];
  if (call.lost)
    block.update(begin, end);
  else
    block.attend(begin, end);
}

// By vectors: with as many of them in a block as its queries fill.
template <class T>
void run_lanes(const Call& call, const Piece& piece, const int32_t* const* places, Memory& memory) {
  if (piece.n > 2 * LANES)
    run<Lanes<T, 3>>(call, piece, places, memory);
  else if (piece.n > LANES)
    run<Lanes<T, 2>>(call, piece, places, memory);
  else
    run<Lanes<T, 1>>(call, piece, places, memory);
}

}  // namespace

// half: whether tokens are halves, or floats.
extern "C" void evt_attention(const Call* pointer, int half, int threads) {
  const Call& call = *pointer;
  std::vector<int32_t> coordinates[2];
  const int32_t* places[2];
  for (int t = 0; t < call.n_terms; t++) {
    const Term& term = call.terms[t];
    for (int64_t group = 0; group < call.groups; group++)
      for (int64_t key = call.key_begin[group]; key < call.key_begin[group + 1]; key++) {
        const int64_t place = call.key_place ? call.key_place[key] : key - call.key_begin[group];
        coordinates[t].push_back((int32_t)(place / term.key_by % term.key_to));
      }
    places[t] = coordinates[t].data();
  }
  const bool tiled = half && Tiles::allowed();
  const int64_t most = tiled ? Tiles::MOST : WIDE * LANES;
  std::vector<Piece> pieces;
  for (int64_t group = 0; group < call.groups; group++)
    for (int64_t h = 0; h < call.heads; h++)
      for (int64_t i = call.query_begin[group]; i < call.query_begin[group + 1]; i += most)
        pieces.push_back({h, group, i, std::min<int64_t>(most, call.query_begin[group + 1] - i)});
#pragma omp parallel num_threads(threads)
  {
    Memory memory;
    const Tiles::Setting setting(tiled);
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < pieces.size(); i++) {
      if (tiled)
        run<Tiles>(call, pieces[i], places, memory);
      else if (half)
        run_lanes<Half>(call, pieces[i], places, memory);
      else
        run_lanes<float>(call, pieces[i], places, memory);
    }
  }
}
