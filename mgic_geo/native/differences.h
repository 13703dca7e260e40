/* Squared distances by differences of coordinates, which nothing but the floats themselves rounds. */
#ifndef MGIC_GEO_DIFFERENCES_H
#define MGIC_GEO_DIFFERENCES_H

#include "kernels.h"

#define FOUR 4 /* others at once */

/* The sums of four vectors. */
INLINE void sums_of(const vfloat *sum, float *to) {
#if defined(__AVX512F__)
    __m512 a = _mm512_unpacklo_ps((__m512)sum[0], (__m512)sum[1]) + _mm512_unpackhi_ps((__m512)sum[0], (__m512)sum[1]);
    __m512 b = _mm512_unpacklo_ps((__m512)sum[2], (__m512)sum[3]) + _mm512_unpackhi_ps((__m512)sum[2], (__m512)sum[3]);
    __m512 each = _mm512_shuffle_ps(a, b, 0x44) + _mm512_shuffle_ps(a, b, 0xee);
    __m256 half = _mm512_castps512_ps256(each) + _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(each), 1));
    _mm_storeu_ps(to, _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1));
#else
    for (int j = 0; j < FOUR; j++) to[j] = 0;
    for (int lane = 0; lane < LANES; lane++)
        for (int j = 0; j < FOUR; j++) to[j] += sum[j][lane];
#endif
}

/* The first `count` of 16 values, and zeros. */
INLINE vfloat some(const float *p, int64_t count) {
#if defined(__AVX512F__)
    return count >= LANES ? load(p) : (vfloat)_mm512_maskz_loadu_ps((__mmask16)((1 << count) - 1), p);
#else
    vfloat x = {0};
    if (count >= LANES) return load(p);
    for (int lane = 0; lane < count; lane++) x[lane] = p[lane];
    return x;
#endif
}

/* Of a point to four others. */
INLINE void differences(const float *point, const float *const *other, int64_t dimensions, float *distance) {
    vfloat sum[FOUR] = {{0}};
    int64_t rest = dimensions % LANES, whole = dimensions - rest;
    for (int64_t c = 0; c < whole; c += LANES)
        for (int j = 0; j < FOUR; j++) {
            vfloat off = load(point + c) - load(other[j] + c);
            sum[j] += off * off;
        }
    for (int j = 0; rest && j < FOUR; j++) {
        vfloat off = some(point + whole, rest) - some(other[j] + whole, rest);
        sum[j] += off * off;
    }
    sums_of(sum, distance);
}

#endif
