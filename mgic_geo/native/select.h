/* The k least values of a row, in order.
 *
 * Selection reads a row twice. The first pass takes the minimum of every 64th value; the k-th least of those 64
 * minima bounds the k-th least value, so that the second pass finds hardly more than k candidates. */
#ifndef MGIC_GEO_SELECT_H
#define MGIC_GEO_SELECT_H

#include "kernels.h"

#define MINIMA 64   /* of the bound; more make it tighter */
#define PARTS (MINIMA / LANES)

/* The least values so far, ascending; among equal ones the first seen comes first. */
typedef struct {
    float *value;
    int64_t *index;
    int64_t have, want;
} Least;

static inline void insert(Least *least, float value, int64_t index) {
    if (least->have == least->want && !(value < least->value[least->want - 1])) return;
    int64_t place = least->have < least->want ? least->have++ : least->want - 1;
    for (; place > 0 && value < least->value[place - 1]; place--) {
        least->value[place] = least->value[place - 1];
        least->index[place] = least->index[place - 1];
    }
    least->value[place] = value;
    least->index[place] = index;
}

/* A bit for each of 16 values that is at most the bound. */
static inline uint32_t at_most(vfloat x, float bound) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(bound), _CMP_LE_OQ);
#else
    uint32_t bits = 0;
    vint less = x <= all(bound);
#if defined(__AVX2__)
    float p[LANES];
    store(p, (vfloat)less);
    bits = _mm256_movemask_ps(_mm256_loadu_ps(p)) | _mm256_movemask_ps(_mm256_loadu_ps(p + 8)) << 8;
#else
    for (int lane = 0; lane < LANES; lane++) bits |= (uint32_t)(less[lane] & 1) << lane;
#endif
    return bits;
#endif
}

/* The least of 16 values. */
static inline float minimum(vfloat x) {
#if defined(__AVX512F__)
    return _mm512_reduce_min_ps((__m512)x);
#else
    float half[LANES];
    store(half, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int lane = 0; lane < width; lane++)
            half[lane] = half[lane + width] < half[lane] ? half[lane + width] : half[lane];
    return half[0];
#endif
}

/* Values as they are, or |x_j|^2 - 2 x_i.x_j from the products x_i.x_j. */
static inline vfloat values(const float *p, const float *norm, int64_t j) {
    return norm ? load(norm + j) - all(2) * load(p + j) : load(p + j);
}
static inline float value_at(const float *p, const float *norm, int64_t j) {
    return norm ? norm[j] - 2 * p[j] : p[j];
}

/* No less than the k-th least of n values; infinite where there are too few to tell. */
static inline float bound_of(const float *p, const float *norm, int64_t n, int64_t k) {
    if (k > MINIMA / 2 || n < 2 * MINIMA) return INFINITY;
    vfloat least[PARTS];
    float bound = INFINITY;
    for (int part = 0; part < PARTS; part++) least[part] = values(p, norm, part * LANES);
    for (int64_t first = MINIMA; first + MINIMA <= n; first += MINIMA)
        for (int part = 0; part < PARTS; part++) {
            vfloat x = values(p, norm, first + part * LANES);
            least[part] = choose(greater(least[part], x), x, least[part]);
        }
    for (int64_t taken = 0; taken < k; taken++) {  /* equal ones go at once, which can only raise the bound */
        vfloat smaller = least[0];
        for (int part = 1; part < PARTS; part++) smaller = choose(greater(smaller, least[part]), least[part], smaller);
        bound = minimum(smaller);
        for (int part = 0; part < PARTS; part++)
            least[part] = choose(greater(least[part], all(bound)), least[part], all(INFINITY));
    }
    return bound;
}

/* The k least of `count` values, and their numbers, in order: each goes to the place that tells how many come before it,
 * without a branch. There are k at least; `value` has room for 16 more; `sorted` may be absent. */
INLINE void in_order(float *value, const int32_t *number, int64_t count, int64_t k, float *sorted,
                     int64_t *index) {
    int32_t place[count + LANES], in_place[count];
    float at_place[count];
    store(value + count, all(INFINITY));
    for (int64_t first = 0; first < count; first += LANES) {
        vfloat mine = load(value + first);
        vint before = {0}, lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        int64_t next = first + LANES < count ? first + LANES : count;
        for (int64_t other = 0; other < first; other++) before = one_more(before, ~greater(all(value[other]), mine));
        for (int64_t other = first; other < next; other++) {
            vfloat its = all(value[other]);
            vmask sooner = more(lane, all_int((int32_t)(other - first)));
            before = one_more(before, greater(mine, its) | (sooner & ~greater(its, mine)));
        }
        for (int64_t other = next; other < count; other++) before = one_more(before, greater(mine, all(value[other])));
        *(vint *)(place + first) = before;
    }
    for (int64_t j = 0; j < count; j++) in_place[place[j]] = number[j];
    if (sorted) {
        for (int64_t j = 0; j < count; j++) at_place[place[j]] = value[j];
        for (int64_t j = 0; j < k; j++) sorted[j] = at_place[j];
    }
    for (int64_t j = 0; j < k; j++) index[j] = in_place[j];
}

/* Values up to the bound in order. */
static inline int select_few(const float *p, const float *norm, int64_t n, float bound, Least *least) {
    float value[MINIMA + LANES];
    int32_t number[MINIMA + LANES];
    int count = 0;
    for (int64_t j = 0; j < n; j += LANES) {
        uint32_t bits = 0;
        if (j + LANES <= n)
            bits = at_most(values(p, norm, j), bound);
        else
            for (int lane = 0; j + lane < n; lane++)
                bits |= (uint32_t)(value_at(p, norm, j + lane) <= bound) << lane;
        for (; bits; bits &= bits - 1) {
            if (count == MINIMA) return 0;
            int64_t here = j + __builtin_ctz(bits);
            value[count] = value_at(p, norm, here);
            number[count++] = (int32_t)here;
        }
    }
    if (count < least->want) return 0; /* some are not numbers */
    in_order(value, number, count, least->want, least->value, least->index);
    least->have = least->want;
    return 1;
}

/* Take n values more, the first of which is number `first`. */
static inline void select_from(const float *p, const float *norm, int64_t n, int64_t first, Least *least) {
    if (first == 0) {
        float bound = bound_of(p, norm, n, least->want);
        if (bound < INFINITY && select_few(p, norm, n, bound, least)) return;
    }
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        float last = least->have == least->want ? least->value[least->want - 1] : INFINITY;
        for (uint32_t bits = at_most(values(p, norm, j), last); bits; bits &= bits - 1) {
            int64_t here = j + __builtin_ctz(bits);
            insert(least, value_at(p, norm, here), first + here);
        }
    }
    for (; j < n; j++) insert(least, value_at(p, norm, j), first + j);
}

#endif
