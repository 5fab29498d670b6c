// How far tokens are from those of another time, without a tensor of the differences; see kernel.py.
#include "lanes.h"

namespace {

// The root of the sum of squares of a - b, of d numbers each.
template <class T>
float distance(const T* a, const T* b, int64_t d) {
  Vec sum[4] = {};  // of every fourth, so that one need not wait for the other
  int64_t i = 0;
  for (; i + 4 * LANES <= d; i += 4 * LANES)
    for (int p = 0; p < 4; p++) {
      const Vec x = load(a + i + p * LANES) - load(b + i + p * LANES);
      sum[p] += x * x;
    }
  sum[0] += sum[1] + (sum[2] + sum[3]);
  float total = 0;
  for (int p = 0; p < LANES; p++) total += sum[0][p];
  for (; i < d; i++) {
    const float x = number(a[i]) - number(b[i]);
    total += x * x;
  }
  return std::sqrt(total);
}

template <class T>
void distances(const T* a, const T* b, int64_t n, int64_t d, float* to, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < n; i++) to[i] = distance(a + i * d, b + i * d, d);
}

}  // namespace

// half: whether numbers are halves, or floats.
extern "C" void evt_distances(const void* a, const void* b, int64_t n, int64_t d, float* to, int half, int threads) {
  if (half)
    distances((const Half*)a, (const Half*)b, n, d, to, threads);
  else
    distances((const float*)a, (const float*)b, n, d, to, threads);
}
