/* What the kernels share: vectors of 16 floats, whose width the compiler fits to the machine. */
#ifndef MGIC_GEO_KERNELS_H
#define MGIC_GEO_KERNELS_H

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

typedef float vfloat __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vint __attribute__((vector_size(4 * LANES), aligned(4)));

static inline vfloat load(const float *p) { return *(const vfloat *)p; }
static inline void store(float *p, vfloat x) { *(vfloat *)p = x; }
static inline vfloat all(float x) { return x - (vfloat){0}; }
static inline vint all_int(int32_t x) { return x - (vint){0}; }

/* Lanes of a where the mask is set (all bits), of b elsewhere. */
static inline vfloat choose(vint mask, vfloat a, vfloat b) {
    return (vfloat)(((vint)a & mask) | ((vint)b & ~mask));
}
static inline vint choose_int(vint mask, vint a, vint b) { return (a & mask) | (b & ~mask); }

#endif
