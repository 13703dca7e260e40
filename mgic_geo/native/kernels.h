/* What the kernels share: vectors of 16 floats, whose width the compiler fits to the machine. */
#ifndef MGIC_GEO_KERNELS_H
#define MGIC_GEO_KERNELS_H

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0
#endif

#define LANES 16
#define RESTRICT __restrict__
#define INLINE static inline __attribute__((always_inline))
/* For long code that is called from many places. */
#define ONCE static __attribute__((noinline, unused))

typedef float vfloat __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vint __attribute__((vector_size(4 * LANES), aligned(4)));

static inline vfloat load(const float *p) { return *(const vfloat *)p; }
static inline void store(float *p, vfloat x) { *(vfloat *)p = x; }
static inline vfloat all(float x) { return x - (vfloat){0}; }
static inline vint all_int(int32_t x) { return x - (vint){0}; }

/* What lanes a comparison picks, and picking by it: AVX-512 has registers of its own for that. */
#if defined(__AVX512F__)
typedef __mmask16 vmask;
static inline vmask greater(vfloat a, vfloat b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
static inline vmask not_a_number(vfloat x) { return _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q); }
static inline vmask same(vint a, vint b) { return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b); }
static inline vmask more(vint a, vint b) { return _mm512_cmpgt_epi32_mask((__m512i)a, (__m512i)b); }
static inline vint one_more(vint x, vmask mask) {
    return (vint)_mm512_mask_add_epi32((__m512i)x, mask, (__m512i)x, _mm512_set1_epi32(1));
}
static inline vfloat choose(vmask mask, vfloat a, vfloat b) {
    return (vfloat)_mm512_mask_blend_ps(mask, (__m512)b, (__m512)a);
}
static inline vint choose_int(vmask mask, vint a, vint b) {
    return (vint)_mm512_mask_blend_epi32(mask, (__m512i)b, (__m512i)a);
}
static inline vfloat add_where(vmask mask, vfloat x, vfloat y) {
    return (vfloat)_mm512_mask_add_ps((__m512)x, mask, (__m512)x, (__m512)y);
}
#else
typedef vint vmask;
static inline vmask greater(vfloat a, vfloat b) { return a > b; }
static inline vmask not_a_number(vfloat x) { return x != x; }
static inline vmask same(vint a, vint b) { return a == b; }
static inline vmask more(vint a, vint b) { return a > b; }
static inline vint one_more(vint x, vmask mask) { return x - mask; }
static inline vfloat choose(vmask mask, vfloat a, vfloat b) {
    return (vfloat)(((vint)a & mask) | ((vint)b & ~mask));
}
static inline vint choose_int(vmask mask, vint a, vint b) { return (a & mask) | (b & ~mask); }
static inline vfloat add_where(vmask mask, vfloat x, vfloat y) { return x + choose(mask, y, y - y); }
#endif

#endif
