// Self-attention of many windows and heads in one call, and its update where some keys changed; see kernel.py.
//
// Queries stand in the lanes of a vector: a block of them is (d x lanes), so a key and a value are read where they
// are, number by number, and what relative positions add to a key's scores is a vector for its row and one for its
// column. Maxima and sums over keys need no shuffling. All powers are of 2.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 8;  // of a tile; its sums fill the registers
#else
constexpr int LANES = 8, ROWS = 4;
#endif
constexpr int WIDE = 3;      // vectors of queries in a block
constexpr int KEYS = 128;    // keys at a time: their scores stay in the first cache
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vec all(float x) { return x - Vec{}; }
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
  const float* table;  // (n, d, m), which queries are multiplied by; or (H, n, m) as they are
  int64_t pairs;       // the latter
  int64_t m, n;        // coordinates of keys, and of queries
  int64_t query_by, query_to, key_by, key_to;
};

// Tokens of one kind: queries, keys, values or results, somewhere in memory.
struct Tokens {
  float* data;
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
  const float *pad_k, *pad_v;             // (H, d)
  Term terms[2];
  // For an update, k and v are those of the call's keys alone, in order, and these what they were.
  Tokens old_k, old_v;
  uint8_t* lost;  // (H, Q)
  float kept;
};

// A block of queries of one head, and what is kept of them while keys pass.
template <int N>
struct Block {
  const Call& call;
  int64_t h, first, n;  // head, the first query of the call, how many; at most N * LANES
  const int32_t* const* places;  // of all keys of the call, for each term
  float *q, *o, *terms[2], *scores;

  Block(const Call& call, int64_t h, int64_t first, int64_t n, const int32_t* const* places,
        std::vector<float>& memory)
      : call(call), h(h), first(first), n(n), places(places) {
    const int64_t width = N * LANES, d = call.d;
    int64_t size = (2 * d + KEYS) * width;
    for (int t = 0; t < call.n_terms; t++) size += call.terms[t].m * (width + 1);
    if ((int64_t)memory.size() < size) memory.resize(size);
    q = memory.data(), o = q + d * width, scores = o + d * width;
    float* next = scores + KEYS * width;
    std::fill(q, q + d * width, 0.0f);
    for (int64_t i = 0; i < n; i++) {
      const float* from = row(call.q, call.query_at[first + i]);
      for (int64_t j = 0; j < d; j++) q[j * width + i] = call.scale * LOG2_E * from[j];
    }
    for (int t = 0; t < call.n_terms; t++) {
      const Term& term = call.terms[t];
      float* const sums = next + term.m * width;
      terms[t] = next, next = sums + term.m;
      std::fill(terms[t], sums, 0.0f);
      for (int64_t i = 0; i < n; i++) {
        const int64_t at = call.query_place[first + i] / term.query_by % term.query_to;
        const float* added = term.table + (h * term.n + at) * term.m;
        if (!term.pairs) {
          product(row(call.q, call.query_at[first + i]), term.table + at * d * term.m, d, term.m, sums);
          added = sums;
        }
        for (int64_t j = 0; j < term.m; j++) terms[t][j * width + i] = LOG2_E * added[j];
      }
    }
  }

  // to = a (d) times b (d, m).
  static void product(const float* a, const float* b, int64_t d, int64_t m, float* __restrict to) {
    std::fill(to, to + m, 0.0f);
    for (int64_t i = 0; i < d; i++)
      for (int64_t j = 0; j < m; j++) to[j] += a[i] * b[i * m + j];
  }

  const float* row(const Tokens& x, int64_t i) const { return x.data + h * x.head + i * x.token; }
  float* row(const Tokens& x, int64_t i) { return x.data + h * x.head + i * x.token; }

  Vec& at(float* x, int64_t row, int part) { return ((Vec*)(x + row * N * LANES))[part]; }

  // Scores of R keys: scores[j] = q k + terms.
  template <int R>
  void tile(const float* const* keys, int64_t key, int64_t j) {
    Vec sum[R][N];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      for (int p = 0; p < N; p++) {
        sum[r][p] = Vec{};
        for (int t = 0; t < call.n_terms; t++) sum[r][p] += at(terms[t], places[t][key + j + r], p);
      }
    for (int64_t i = 0; i < call.d; i++)
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const Vec x = all(keys[j + r][i]);
        for (int p = 0; p < N; p++) sum[r][p] += x * at(q, i, p);
      }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      for (int p = 0; p < N; p++) at(scores, j + r, p) = sum[r][p];
  }

  // Products of some keys, the first of which is so many'th of the call.
  void products(const float* const* keys, int64_t key, int64_t m) {
    int64_t j = 0;
    for (; j + ROWS <= m; j += ROWS) tile<ROWS>(keys, key, j);
    for (; j < m; j++) tile<1>(keys, key, j);
  }

  // o[i] += sum of the keys' weights times their values, R numbers at a time.
  template <int R>
  void add(const float* const* values, int64_t m, int64_t i) {
    Vec sum[R][N];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      for (int p = 0; p < N; p++) sum[r][p] = at(o, i + r, p);
    for (int64_t j = 0; j < m; j++)
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const Vec x = all(values[j][i + r]);
        for (int p = 0; p < N; p++) sum[r][p] += x * at(scores, j, p);
      }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
      for (int p = 0; p < N; p++) at(o, i + r, p) = sum[r][p];
  }

  void weighted(const float* const* values, int64_t m) {
    int64_t i = 0;
    for (; i + ROWS <= call.d; i += ROWS) add<ROWS>(values, m, i);
    for (; i < call.d; i++) add<1>(values, m, i);
  }

  // Writes o times a factor of each query.
  void write(const float* factor) {
    for (int64_t i = 0; i < n; i++) {
      float* to = row(call.out, call.query_at[first + i]);
      for (int64_t j = 0; j < call.d; j++) to[j] = o[j * N * LANES + i] * factor[i];
    }
  }

  void attend(int64_t begin, int64_t end) {
    Vec most[N], total[N];
    for (int p = 0; p < N; p++) most[p] = all(std::numeric_limits<float>::lowest()), total[p] = Vec{};
    std::memset(o, 0, sizeof(float) * call.d * N * LANES);
    const float *keys[KEYS], *values[KEYS];
    for (int64_t key = begin; key < end; key += KEYS) {
      const int64_t m = std::min<int64_t>(KEYS, end - key);
      for (int64_t j = 0; j < m; j++) {
        const int64_t token = call.key_at[key + j];
        keys[j] = token < 0 ? call.pad_k + h * call.d : row(call.k, token);
        values[j] = token < 0 ? call.pad_v + h * call.d : row(call.v, token);
      }
      products(keys, key, m);
      for (int p = 0; p < N; p++) {
        Vec now = most[p];
        for (int64_t j = 0; j < m; j++) now = larger(at(scores, j, p), now);
        const Vec less = exp2(most[p] - now);
        Vec sum = total[p] * less;
        for (int64_t j = 0; j < m; j++) sum += at(scores, j, p) = exp2(at(scores, j, p) - now);
        for (int64_t i = 0; i < call.d; i++) at(o, i, p) *= less;
        most[p] = now, total[p] = sum;
      }
      weighted(values, m);
    }
    float factor[N * LANES];
    for (int64_t i = 0; i < n; i++) {
      const float sum = total[i / LANES][i % LANES];
      factor[i] = 1 / sum;
      if (call.lse.data) *row(call.lse, call.query_at[first + i]) = LN_2 * (most[i / LANES][i % LANES] + std::log2(sum));
    }
    write(factor);
  }

  // Adds to o the values of some keys, as they count by the log-sum-exp that is kept, and to total how much they count.
  void replace(const Tokens& k, const Tokens& v, int64_t begin, int64_t end, const Vec* lse, Vec* total) {
    const float *keys[KEYS], *values[KEYS];
    for (int64_t key = begin; key < end; key += KEYS) {
      const int64_t m = std::min<int64_t>(KEYS, end - key);
      for (int64_t j = 0; j < m; j++) keys[j] = row(k, key + j), values[j] = row(v, key + j);
      products(keys, key, m);
      for (int p = 0; p < N; p++)
        for (int64_t j = 0; j < m; j++) total[p] += at(scores, j, p) = exp2(at(scores, j, p) - lse[p]);
      weighted(values, m);
    }
  }

  void update(int64_t begin, int64_t end) {
    Vec less[N], taken[N], given[N];
    for (int p = 0; p < N; p++) taken[p] = given[p] = Vec{};
    for (int64_t i = 0; i < N * LANES; i++)
      less[i / LANES][i % LANES] = i < n ? LOG2_E * *row(call.lse, call.query_at[first + i]) : 0;
    std::memset(o, 0, sizeof(float) * call.d * N * LANES);
    replace(call.old_k, call.old_v, begin, end, less, taken);
    for (int64_t i = 0; i < call.d; i++)
      for (int p = 0; p < N; p++) at(o, i, p) = -at(o, i, p);
    replace(call.k, call.v, begin, end, less, given);
    float factor[N * LANES];
    for (int64_t i = 0; i < n; i++) {
      const float kept = 1 - taken[i / LANES][i % LANES], z = kept + given[i / LANES][i % LANES];
      call.lost[h * call.query_begin[call.groups] + first + i] = !(kept > call.kept && std::isfinite(z));
      const int64_t token = call.query_at[first + i];
      const float* before = row(call.out, token);
      for (int64_t j = 0; j < call.d; j++) o[j * N * LANES + i] += before[j];
      factor[i] = 1 / z;
      *row(call.lse, token) += std::log(z);
    }
    write(factor);
  }
};

// Some queries of a group, in one head.
struct Piece {
  int64_t h, group, first, n;
};

template <int N>
void run(const Call& call, const Piece& piece, const int32_t* const* places, std::vector<float>& memory) {
  Block<N> block(call, piece.h, piece.first, piece.n, places, memory);
  const int64_t begin = call.key_begin[piece.group], end = call.key_begin[piece.group + 1];
  if (call.lost)
    block.update(begin, end);
  else
    block.attend(begin, end);
}

}  // namespace

extern "C" void evt_attention(const Call* pointer, int threads) {
  const Call& call = *pointer;
  std::vector<Piece> pieces;
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
  for (int64_t group = 0; group < call.groups; group++)
    for (int64_t h = 0; h < call.heads; h++)
      for (int64_t i = call.query_begin[group]; i < call.query_begin[group + 1]; i += WIDE * LANES)
        pieces.push_back({h, group, i, std::min<int64_t>(WIDE * LANES, call.query_begin[group + 1] - i)});
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> memory;
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < pieces.size(); i++) {
      const Piece& piece = pieces[i];
      if (piece.n > 2 * LANES)
        run<3>(call, piece, places, memory);
      else if (piece.n > LANES)
        run<2>(call, piece, places, memory);
      else
        run<1>(call, piece, places, memory);
    }
  }
}
