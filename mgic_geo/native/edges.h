/* Edge convolution on k-NN graphs: the maps of a cloud's nodes, then one pass over their neighbours.
 *
 * An edge's value is u_i + v_j. Both stand in rows or panels of 2C channels: for each group of s channels first its s values
 * of u, then its s values of v, as one grouped map writes them. They are needed for one cloud at a time, which fits the
 * cache. A neighbour that attains a maximum is told by its rank in the node's row, one byte. */
#ifndef MGIC_GEO_EDGES_H
#define MGIC_GEO_EDGES_H

#include "linear.h"
#include "norm.h"

typedef uint8_t vbyte __attribute__((vector_size(LANES), aligned(1)));

typedef struct {
    int64_t clouds, size, groups, in, group, degree; /* size: nodes of a cloud; in, group: channels of a group */
} Shape;

#if defined(__AVX512F__)
static inline vint ranks(const uint8_t *p) { return (vint)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
static inline void store_ranks(uint8_t *p, vint x) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)x)); }
#else
static inline vint ranks(const uint8_t *p) { return __builtin_convertvector(*(const vbyte *)p, vint); }
static inline void store_ranks(uint8_t *p, vint x) { *(vbyte *)p = __builtin_convertvector(x, vbyte); }
#endif

/* Where channel c of u lies in a row of uv; that of v is `group` further. */
static inline int64_t place(const Shape *shape, int64_t c) { return 2 * c - c % shape->group; }

#endif
