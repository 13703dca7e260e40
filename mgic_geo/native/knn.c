/* k-nearest neighbours: the least distances of a row, and distances of few dimensions.
 *
 * Selection reads a row twice. The first pass takes the minimum of every 64th value; the k-th least of those 64
 * minima bounds the k-th least value, so that the second pass finds hardly more than k candidates. */
#include "linear.h"


#define MINIMA 64   /* of the bound; more make it tighter */
#define PARTS (MINIMA / LANES)
#define CHUNK 4096  /* distances at once, which stay in the first-level cache */

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
    float half[LANES];
    store(half, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int lane = 0; lane < width; lane++)
            half[lane] = half[lane + width] < half[lane] ? half[lane + width] : half[lane];
    return half[0];
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

/* Values up to the bound into sorted order, each to the place that tells how many come before it: no branches. */
static inline int select_few(const float *p, const float *norm, int64_t n, float bound, Least *least) {
    float value[MINIMA + LANES];
    int32_t place[MINIMA + LANES];
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
            place[count++] = (int32_t)here;
        }
    }
    for (int lane = 0; lane < LANES; lane++) value[count + lane] = INFINITY;
    for (int first = 0; first < count; first += LANES) {
        vfloat mine = load(value + first);
        vint before = {0}, number = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        number += all_int(first);
        for (int other = 0; other < count; other++) {
            vfloat its = all(value[other]);
            before -= (its < mine) | ((its == mine) & (all_int(other) < number));
        }
        for (int lane = 0; lane < LANES && first + lane < count; lane++)
            if (before[lane] < least->want) {
                least->value[before[lane]] = value[first + lane];
                least->index[before[lane]] = place[first + lane];
            }
    }
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

#define QUERIES 32 /* points whose products are there at once */

/* Neighbours of all points from matrix products of their coordinates.
 *
 * points: (clouds, n, dimensions); panels: the same as (clouds, wide / 32, dimensions, 32), zero where there are no
 * points; norm: (clouds, n) squared norms; wide: n rounded up to a multiple of 32; keep: k, or k + 1 where there are as
 * many points; noise: the rounding of a value over (|x_i| + reach)^2; index: (clouds * n, k); doubt: (clouds * n), set
 * where rounding could have decided. `work`: 32 * min(wide, 4096) for each thread. */
void mgic_knn_products(const float *points, const float *panels, const float *norm, int64_t clouds, int64_t n,
                       int64_t wide, int64_t dimensions, int64_t k, int64_t keep, int64_t loop, float noise,
                       int64_t *index, uint8_t *doubt, float *work, int64_t threads) {
    int64_t step = wide < CHUNK ? wide : CHUNK, blocks = (n + QUERIES - 1) / QUERIES;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t task = 0; task < clouds * blocks; task++) {
        int64_t base = task / blocks * n, start = task % blocks * QUERIES;
        int64_t rows = start + QUERIES < n ? QUERIES : n - start;
        const float *query = points + (base + start) * dimensions, *own_norm = norm + base;
        float *product = work + omp_get_thread_num() * QUERIES * step, value[QUERIES * keep];
        int64_t place[QUERIES * keep];
        Least least[QUERIES];
        for (int64_t row = 0; row < rows; row++) least[row] = (Least){value + row * keep, place + row * keep, 0, keep};
        for (int64_t first = 0; first < n; first += step) {
            int64_t last = first + step < wide ? first + step : wide, count = (last < n ? last : n) - first;
            for (int64_t c = first; c < last; c += 2 * LANES) {
                const float *panel = panels + (task / blocks * wide + c) * dimensions;
                int64_t row = 0;
                for (; row + ROWS <= rows; row += ROWS)
                    tile(query + row * dimensions, dimensions, LANES, panel, 2 * LANES, NULL, 0,
                         product + row * step + c - first, step, LANES, dimensions, ROWS, 2);
                for (; row < rows; row++)
                    tile(query + row * dimensions, dimensions, LANES, panel, 2 * LANES, NULL, 0,
                         product + row * step + c - first, step, LANES, dimensions, 1, 2);
            }
            for (int64_t row = 0; row < rows; row++) {
                int64_t itself = start + row - first;
                if (itself >= 0 && itself < count) product[row * step + itself] = loop ? INFINITY : -INFINITY;
                select_from(product + row * step, own_norm + first, count, first, &least[row]);
            }
        }
        for (int64_t row = 0; row < rows; row++) {
            const float *sorted = least[row].value;
            memcpy(index + (base + start + row) * k, least[row].index, k * sizeof *index);
            float own = own_norm[start + row], reach = sorted[k - 1] + own;
            reach = sqrtf(own) + sqrtf(reach > 0 ? reach : 0);
            uint8_t open = 0;
            /* not that it is below: infinite values tell nothing apart */
            for (int64_t r = 1; r < keep; r++) open |= !(sorted[r] - sorted[r - 1] > 2 * noise * reach * reach);
            doubt[base + start + row] = open;
        }
    }
}

/* Distances of one point to `count` others by differences, whose coordinates lie `step` apart. */
static inline void differences(const float *point, const float *others, int64_t dimensions, int64_t count,
                               float *distance) {
    for (int64_t j = 0; j < count; j++) {
        const float *other = others + j * dimensions;
        vfloat sum = {0};
        float rest = 0;
        int64_t c = 0;
        for (; c + LANES <= dimensions; c += LANES) {
            vfloat off = load(point + c) - load(other + c);
            sum += off * off;
        }
        for (; c < dimensions; c++) rest += (point[c] - other[c]) * (point[c] - other[c]);
        for (int lane = 0; lane < LANES; lane++) rest += sum[lane];
        distance[j] = rest;
    }
}

/* Neighbours of the points `query` (numbered through all clouds) by differences; points: (clouds, n, dimensions),
 * index: (clouds * n, k). */
void mgic_knn_settle(const float *points, int64_t n, int64_t dimensions, const int64_t *query, int64_t queries,
                     int64_t k, int64_t loop, int64_t *index, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t q = 0; q < queries; q++) {
        int64_t own = query[q] % n;
        const float *cloud = points + query[q] / n * n * dimensions;
        float distance[CHUNK], value[k];
        Least least = {value, index + query[q] * k, 0, k};
        for (int64_t first = 0; first < n; first += CHUNK) {
            int64_t count = n - first < CHUNK ? n - first : CHUNK;
            differences(cloud + own * dimensions, cloud + first * dimensions, dimensions, count, distance);
            if (own >= first && own < first + count) distance[own - first] = loop ? -INFINITY : INFINITY;
            select_from(distance, NULL, count, first, &least);
        }
    }
}

/* Neighbours of all points by differences; points: (clouds, dimensions, n), index: (clouds, n, k). */
void mgic_knn_direct(const float *points, int64_t clouds, int64_t dimensions, int64_t n, int64_t k, int64_t loop,
                     int64_t *index, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t row = 0; row < clouds * n; row++) {
        const float *cloud = points + row / n * dimensions * n;
        int64_t own = row % n;
        float distance[CHUNK], value[k];
        Least least = {value, index + row * k, 0, k};
        for (int64_t first = 0; first < n; first += CHUNK) {
            int64_t count = n - first < CHUNK ? n - first : CHUNK;
            for (int64_t c = 0; c < dimensions; c++) {
                const float *RESTRICT x = cloud + c * n + first;
                float center = cloud[c * n + own];
                if (c == 0)
                    for (int64_t j = 0; j < count; j++) distance[j] = (center - x[j]) * (center - x[j]);
                else
                    for (int64_t j = 0; j < count; j++) distance[j] += (center - x[j]) * (center - x[j]);
            }
            if (own >= first && own < first + count) distance[own - first] = loop ? -INFINITY : INFINITY;
            select_from(distance, NULL, count, first, &least);
        }
    }
}
