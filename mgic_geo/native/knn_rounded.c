/* k-nearest neighbours by products of integers, which tell who may be near, and by differences among those.
 *
 * If rounding moves point i by r_i, distances between rounded points are off by r_i + r_j at most, so the k nearest are among
 * those within the k-th least of them and twice that. Distances of these few are then computed from the coordinates as they
 * are. Bytes come first; where they leave too many, words do it again. For processors with dot products of both (AVX-512
 * VNNI). */
#include "rounded.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI2__)
const int32_t mgic_integral = 1;

#define QUERIES 32    /* points whose products are there at once */
#define MOST 256      /* candidates of a point */
#define ENOUGH 48     /* candidates on average, beyond which words are the faster way */
#define DEEPEST 16384 /* dimensions up to which sums of bytes fit TOP */
#define APART 48      /* numbers behind a row of products, so that rows fall on different places of a cache */
#define TOGETHER 4    /* rows whose bounds are found at once, so that one waits while others go on */

/* Of some rows no more than the k-th largest of the values of whose every 64th `largest` are the largest. */
static inline void bounds_among(const __m512i *largest, int64_t k, int32_t *bound) {
    __m512i left[TOGETHER][PARTS];
    int64_t taken[TOGETHER] = {0};
    for (int r = 0; r < TOGETHER; r++)
        for (int part = 0; part < PARTS; part++) left[r][part] = largest[r * PARTS + part];
    for (int64_t step = 0; step < k; step++)
        for (int r = 0; r < TOGETHER; r++) {
            __m512i *own = left[r], most = _mm512_max_epi32(_mm512_max_epi32(own[0], own[1]), _mm512_max_epi32(own[2], own[3]));
            int32_t next = _mm512_reduce_max_epi32(most);
            most = _mm512_set1_epi32(next);
            bound[r] = taken[r] < k ? next : bound[r];
            for (int part = 0; part < PARTS; part++) { /* equal ones go at once */
                __mmask16 them = _mm512_cmpeq_epi32_mask(own[part], most);
                own[part] = _mm512_mask_mov_epi32(own[part], them, _mm512_set1_epi32(-TOP));
                taken[r] += __builtin_popcount(them);
            }
        }
}

/* Numbers of the values that are `least` or more, in their place, and how many there are. There is room for 64 more. */
static inline int64_t candidates(int32_t *product, int64_t n, int32_t least) {
    __m512i bound = _mm512_set1_epi32(least), numbers; /* bytes, 0 to 63 */
    uint8_t number[64];
    for (int i = 0; i < 64; i++) number[i] = (uint8_t)i;
    numbers = _mm512_loadu_si512(number);
    int64_t count = 0;
    for (int64_t j = 0; j < n; j += 64) {
        uint64_t bits = 0;
        for (int part = 0; part < 4; part++) {
            __m512i own = _mm512_loadu_si512(product + j + part * LANES);
            bits |= (uint64_t)_mm512_cmpge_epi32_mask(own, bound) << (part * LANES);
        }
        if (j + 64 > n) bits &= ((uint64_t)1 << (n - j)) - 1;
        __m512i found = _mm512_maskz_compress_epi8(bits, numbers);
        int64_t more = __builtin_popcountll(bits);
        do { /* once, nearly always: no branch to predict */
            __m512i own = _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(found)), _mm512_set1_epi32((int32_t)j));
            _mm512_storeu_si512(product + count, own);
            count += more < LANES ? more : LANES;
            more -= LANES;
            found = _mm512_alignr_epi32(found, found, 4);
        } while (more > 0);
    }
    return count;
}

/* What a row's products must be at least for a point that may be among the k nearest. */
static inline int32_t least_of(const Rounded *own, int64_t i, int32_t bound, int64_t dimensions) {
    double square = (double)own->norm[i] - 2 * ((double)bound - own->sum[i]) + 1;
    double reach = sqrt(square > 0 ? square : 0) + 2 * (double)(own->moved[i] + own->furthest);
    reach *= 1 + 4e-7 * (double)(dimensions + 64); /* differences are rounded, too */
    double least = floor((own->norm[i] - reach * reach) / 2) - 1 + own->sum[i];
    return least > -TOP ? (int32_t)least : -TOP;
}

typedef struct {
    int64_t n, wide, dimensions, deep, k, loop;
} Sizes;

/* Numbers of those who may be among the k nearest of some points, from the point `start` on, each row at the beginning of
 * its products; how many there are of each, and of all. */
INLINE int64_t choose_by(const Rounded *own, int64_t start, int64_t rows, const Sizes *size, int32_t *product, int64_t *count,
                         const int bytes) {
    int64_t quads = own->quads, step = size->wide + APART, sum = 0;
    int32_t bound[QUERIES];
    __m512i most[QUERIES * PARTS];
    for (int i = 0; i < QUERIES * PARTS; i++) most[i] = _mm512_set1_epi32(-TOP);
    for (int64_t j = 0; j < size->wide; j += 2 * LANES)
        for (int64_t r = 0; r < rows; r += TILE_ROWS)
            tile(own->rows + (start + r) * quads, own->panels + j * quads, own->half + j, quads, product + r * step + j, step,
                 most + r * PARTS + j / LANES % PARTS, bytes);
    for (int64_t r = 0; r < rows; r += TOGETHER) bounds_among(most + r * PARTS, size->k + !size->loop, bound + r);
    for (int64_t r = 0; r < rows; r++) {
        count[r] = candidates(product + r * step, size->n, least_of(own, start + r, bound[r], size->dimensions));
        sum += count[r];
    }
    return sum;
}

/* Neighbours of these points from those who were chosen. */
static void put_in_order(const float *cloud, int64_t start, int64_t rows, const Sizes *size, int32_t *product,
                         const int64_t *count, int64_t *index, uint8_t *doubt) {
    float value[MOST + LANES];
    for (int64_t r = 0; r < rows; r++) {
        int32_t *which = product + r * (size->wide + APART);
        doubt[start + r] = count[r] > MOST;
        if (count[r] > MOST) continue;
        for (int64_t j = 0; j < FOUR; j++) which[count[r] + j] = which[0];
        for (int64_t j = 0; j < count[r]; j += FOUR) {
            const float *few[FOUR];
            for (int o = 0; o < FOUR; o++) few[o] = cloud + which[j + o] * size->dimensions;
            differences(cloud + (start + r) * size->dimensions, few, size->dimensions, value + j);
        }
        for (int64_t j = 0; j < count[r]; j++)
            if (which[j] == start + r) value[j] = size->loop ? -INFINITY : INFINITY;
        in_order(value, which, count[r], size->k, NULL, index + (start + r) * size->k);
    }
}

/* points: (clouds, n, dimensions); wide: n rounded up to a multiple of 32; deep: dimensions rounded up to one of 16; index:
 * (clouds * n, k); doubt: (clouds * n), set where there are too many candidates; finite: (clouds), zero where squared
 * distances are not, whose points are all in doubt. `made`: (clouds, wide * (deep + 4)); `work`: deep for each cloud, then
 * 32 (wide + 48) for each thread. */
void mgic_knn_rounded(const float *points, int64_t clouds, int64_t n, int64_t wide, int64_t dimensions, int64_t deep, int64_t k,
                      int64_t loop, int64_t *index, uint8_t *doubt, uint8_t *finite, int32_t *made, float *work,
                      int64_t threads) {
    int64_t blocks = wide / QUERIES, size_of_work = QUERIES * (wide + APART);
    Sizes size = {n, wide, dimensions, deep, k, loop};
    Rounded *rounded = malloc(clouds * sizeof *rounded);
    float *norm = malloc(clouds * sizeof *norm);
    uint8_t *again = malloc(clouds * blocks);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t bytes = 1, coarse = -1; bytes >= 0; bytes--) { /* then words, for the blocks that are left */
#pragma omp for schedule(dynamic)
        for (int64_t cloud = 0; cloud < clouds; cloud++) {
            const float *own = points + cloud * n * dimensions;
            float *mean = work + cloud * deep, coordinate;
            uint8_t *left = again + cloud * blocks;
            if (bytes) {
                largest(own, n, dimensions, deep, mean, &coordinate, norm + cloud);
                finite[cloud] = norm[cloud] < INFINITY;
                int apart = 127 / coordinate < INFINITY && 23170 / norm[cloud] < INFINITY; /* so that steps are numbers */
                memset(doubt + cloud * n, 1, n);
                memset(left, finite[cloud] && apart, blocks);
                rounded[cloud] = rounded_in(made + cloud * wide * (deep + 4), wide, deep / 4);
                if (left[0] && deep <= DEEPEST)
                    round_all(own, n, wide, dimensions, deep, mean, 127 / coordinate, rounded + cloud, 1);
            } else if (memchr(left, 1, blocks)) {
                rounded[cloud] = rounded_in(made + cloud * wide * (deep + 4), wide, deep / 2);
                round_all(own, n, wide, dimensions, deep, mean, 23170 / norm[cloud], rounded + cloud, 0);
            }
        }
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < clouds * blocks; task++) {
            int64_t cloud = task / blocks, start = task % blocks * QUERIES, rows = start + QUERIES < n ? QUERIES : n - start;
            int64_t count[QUERIES];
            int32_t *product = (int32_t *)(work + clouds * deep) + omp_get_thread_num() * size_of_work;
            if (!again[task] || (bytes && (deep > DEEPEST || cloud == coarse))) continue;
            if (!bytes)
                choose_by(rounded + cloud, start, rows, &size, product, count, 0);
            else if (choose_by(rounded + cloud, start, rows, &size, product, count, 1) > ENOUGH * rows) {
                coarse = cloud; /* for its next points as well, in all likelihood */
                continue;
            }
            again[task] = 0;
            put_in_order(points + cloud * n * dimensions, start, rows, &size, product, count, index + cloud * n * k,
                         doubt + cloud * n);
        }
    }
    free(rounded);
    free(norm);
    free(again);
}
#else
const int32_t mgic_integral = 0;
void mgic_knn_rounded(const float *points, int64_t clouds, int64_t n, int64_t wide, int64_t dimensions, int64_t deep, int64_t k,
                      int64_t loop, int64_t *index, uint8_t *doubt, uint8_t *finite, int32_t *made, float *work,
                      int64_t threads) {}
#endif
