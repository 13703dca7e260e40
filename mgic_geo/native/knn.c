/* k-nearest neighbours: distances, and the least of each row. */
#include "differences.h"
#include "linear.h"
#include "select.h"

#define CHUNK 4096 /* distances at once, which stay in the first-level cache */
#define QUERIES 32 /* points whose products are there at once */

/* Products of `rows` points, D dimensions apart, with 32 others, a panel. */
static inline void block(const float *query, int64_t rows, const float *panel, int64_t dimensions, float *product,
                         int64_t step) {
    int64_t row = 0;
    for (; row + ROWS <= rows; row += ROWS)
        tile(query + row * dimensions, dimensions, panel, 2 * LANES, NULL, 0, product + row * step, step, dimensions, ROWS, 2);
    for (; row < rows; row++)
        tile(query + row * dimensions, dimensions, panel, 2 * LANES, NULL, 0, product + row * step, step, dimensions, 1, 2);
}

/* What is known of the neighbours that were selected for a point: see mgic_knn_products. */
static inline void finish(const Least *least, float own, int64_t k, float noise, int64_t *index, uint8_t *doubt) {
    const float *sorted = least->value;
    memcpy(index, least->index, k * sizeof *index);
    float reach = sorted[k - 1] + own;
    reach = sqrtf(own) + sqrtf(reach > 0 ? reach : 0);
    uint8_t open = 0;
    /* not that it is below: infinite values tell nothing apart */
    for (int64_t r = 1; r < least->want; r++) open |= !(sorted[r] - sorted[r - 1] > 2 * noise * reach * reach);
    *doubt = open;
}

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
            for (int64_t c = first; c < last; c += QUERIES)
                block(query, rows, panels + (task / blocks * wide + c) * dimensions, dimensions, product + c - first, step);
            for (int64_t row = 0; row < rows; row++) {
                int64_t itself = start + row - first;
                if (itself >= 0 && itself < count) product[row * step + itself] = loop ? INFINITY : -INFINITY;
                select_from(product + row * step, own_norm + first, count, first, &least[row]);
            }
        }
        for (int64_t row = 0; row < rows; row++) {
            int64_t own = base + start + row;
            finish(&least[row], norm[own], k, noise, index + own * k, doubt + own);
        }
    }
}

/* 16 rows of 16 floats with rows and columns exchanged. */
static inline void turn(const float *from, int64_t from_step, float *to, int64_t to_step) {
#if defined(__AVX512F__)
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(from + i * from_step);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int h = 0; h < 2; h++) {
            __m512d x = _mm512_castps_pd(b[i + h]), y = _mm512_castps_pd(b[i + h + 2]);
            a[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            a[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    for (int i = 0; i < 4; i++) { /* a[4 r + i] holds columns i, i + 4, i + 8 and i + 12 of four rows */
        __m512 even = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), odd = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
        __m512 even_2 = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
        __m512 odd_2 = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
        _mm512_storeu_ps(to + i * to_step, _mm512_shuffle_f32x4(even, even_2, 0x88));
        _mm512_storeu_ps(to + (i + 4) * to_step, _mm512_shuffle_f32x4(odd, odd_2, 0x88));
        _mm512_storeu_ps(to + (i + 8) * to_step, _mm512_shuffle_f32x4(even, even_2, 0xdd));
        _mm512_storeu_ps(to + (i + 12) * to_step, _mm512_shuffle_f32x4(odd, odd_2, 0xdd));
    }
#else
    for (int c = 0; c < 16; c++)
        for (int r = 0; r < 16; r++) to[c * to_step + r] = from[r * from_step + c];
#endif
}

/* A panel of up to 32 points: (dimensions, 32), zero where there are no points. */
static inline void panel_of(const float *points, int64_t rows, int64_t dimensions, float *panel) {
    for (int64_t r = 0; r < QUERIES; r += LANES)
        for (int64_t d = 0; d < dimensions; d += LANES)
            if (r + LANES <= rows && d + LANES <= dimensions)
                turn(points + r * dimensions + d, dimensions, panel + d * QUERIES + r, QUERIES);
            else
                for (int64_t c = d; c < d + LANES && c < dimensions; c++)
                    for (int64_t own = r; own < r + LANES; own++)
                        panel[c * QUERIES + own] = own < rows ? points[own * dimensions + c] : 0;
}

/* The same with each product computed once for both its points, all those of a cloud being there at once: `work` is wide *
 * (wide + dimensions) for each of the clouds that threads work on together, so that a single one has them all. */
void mgic_knn_symmetric(const float *points, const float *norm, int64_t clouds, int64_t n, int64_t wide,
                        int64_t dimensions, int64_t k, int64_t keep, int64_t loop, float noise, int64_t *index,
                        uint8_t *doubt, float *work, int64_t together, int64_t threads) {
    int64_t blocks = wide / QUERIES, share = wide * (wide + dimensions);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < clouds; first += together) {
        int64_t tasks = (first + together < clouds ? together : clouds - first) * blocks;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; task++) {
            int64_t start = task % blocks * QUERIES;
            float *panels = work + task / blocks * share + wide * wide;
            panel_of(points + ((first + task / blocks) * n + start) * dimensions,
                     start + QUERIES < n ? QUERIES : n - start, dimensions, panels + start * dimensions);
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks; task++) {
            int64_t a = task % blocks, start = a * QUERIES;
            const float *query = points + ((first + task / blocks) * n + start) * dimensions;
            float *products = work + task / blocks * share, *panels = products + wide * wide;
            /* each block with the half of all that follow it, in a circle: every pair once, and equal work */
            for (int64_t further = 0; further <= blocks / 2; further++) {
                int64_t b = (a + further) % blocks, other = b * QUERIES;
                if (further && 2 * further == blocks && b < a) continue;
                float *product = products + start * wide + other, *turned = products + other * wide + start;
                block(query, start + QUERIES < n ? QUERIES : n - start, panels + other * dimensions, dimensions, product,
                      wide);
                for (int64_t r = 0; further && r < QUERIES; r += LANES)
                    for (int64_t c = 0; c < QUERIES; c += LANES)
                        turn(product + r * wide + c, wide, turned + c * wide + r, wide);
            }
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < tasks * QUERIES; task++) {
            int64_t row = task % wide, own = (first + task / wide) * n + row, place[keep];
            if (row >= n) continue;
            float *product = work + task / wide * share + row * wide, value[keep];
            Least least = {value, place, 0, keep};
            product[row] = loop ? INFINITY : -INFINITY;
            select_from(product, norm + own - row, n, 0, &least);
            finish(&least, norm[own], k, noise, index + own * k, doubt + own);
        }
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
        float distance[CHUNK + FOUR], value[k];
        Least least = {value, index + query[q] * k, 0, k};
        for (int64_t first = 0; first < n; first += CHUNK) {
            int64_t count = n - first < CHUNK ? n - first : CHUNK;
            const float *point = cloud + own * dimensions, *others = cloud + first * dimensions;
            for (int64_t j = 0; j < count; j += FOUR) {
                const float *few[FOUR];
                for (int64_t o = 0; o < FOUR; o++) few[o] = others + (j + o < count ? j + o : j) * dimensions;
                differences(point, few, dimensions, distance + j);
            }
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
