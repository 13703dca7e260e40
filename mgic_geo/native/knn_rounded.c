/* k-nearest neighbours by products of integers, which tell who may be near, and by differences among those.
 *
 * If rounding moves point i by r_i, distances between rounded points are off by r_i + r_j at most, so the k nearest are among
 * those within the k-th least of them and twice that. Distances of these few are then computed from the coordinates as they
 * are; where they are many, first those of k that seem nearest, whose furthest bounds the k-th, so that all are within it and
 * once that. Bytes come first; where they leave too many, words do it again. For processors with dot products of both
 * (AVX-512 VNNI). */
#include "rounded.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI2__)
const int32_t mgic_has_vnni = 1;

#define QUERIES 32    /* points whose products are there at once */
#define MOST 256      /* candidates of a point */
#define MANY 2        /* times k: candidates that are narrowed first, and of fewer dimensions */
#define FLAT 2048     /* over the dimensions, so many more */
#define ENOUGH 48     /* candidates on average, and one more for every 8 dimensions, beyond which words are the faster way */
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

/* Numbers of the values that are `least` or more, and how many there are. There is room for 64 more. */
static inline int64_t candidates(const int32_t *product, int64_t n, int32_t least, int32_t *which) {
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
            _mm512_storeu_si512(which + count, own);
            count += more < LANES ? more : LANES;
            more -= LANES;
            found = _mm512_alignr_epi32(found, found, 4);
        } while (more > 0);
    }
    return count;
}

/* What products of point i must be at least for a point within `reach` steps of it. */
static inline int32_t least_within(const Rounded *own, int64_t i, double reach, int64_t dimensions) {
    reach *= 1 + 4e-7 * (double)(dimensions + 64); /* differences are rounded, too */
    double least = floor((own->norm[i] - reach * reach) / 2) - 1 + own->sum[i];
    return least > -TOP ? (int32_t)least : -TOP;
}

/* The same for a point that may be among the k nearest, if as many have products of `bound` or more. */
static inline int32_t least_of(const Rounded *own, int64_t i, int32_t bound, int64_t dimensions) {
    double square = (double)own->norm[i] - 2 * ((double)bound - own->sum[i]) + 1;
    return least_within(own, i, sqrt(square > 0 ? square : 0) + 2 * (double)(own->moved[i] + own->furthest), dimensions);
}

typedef struct {
    int64_t n, wide, dimensions, deep, k, loop;
} Sizes;

/* Of point i's candidates `which`, those that may still be among the k nearest by the distances of those whose products are
 * `bound` or more, who are k at least, or k and i itself. How many there are. */
static int64_t narrow(const Rounded *own, const float *cloud, int64_t i, const Sizes *size, const int32_t *product,
                      int32_t bound, int32_t *which, int64_t count) {
    int64_t first = 0, kept = 0;
    int32_t near[MOST + FOUR];
    float square[MOST + FOUR], most = 0;
    for (int64_t j = 0; j < count; j++) {
        near[first] = which[j];
        first += product[which[j]] >= bound;
        if (first > MOST) return count; /* copies of one point */
    }
    for (int64_t j = 0; j < FOUR; j++) near[first + j] = near[0];
    for (int64_t j = 0; j < first; j += FOUR) {
        const float *few[FOUR];
        for (int o = 0; o < FOUR; o++) few[o] = cloud + near[j + o] * size->dimensions;
        differences(cloud + i * size->dimensions, few, size->dimensions, square + j);
    }
    for (int64_t j = 0; j < first; j++) most = square[j] > most ? square[j] : most;
    double reach = sqrt(most) * (double)own->steps + (double)(own->moved[i] + own->furthest);
    int32_t least = least_within(own, i, reach, size->dimensions);
    for (int64_t j = 0; j < count; j++) {
        which[kept] = which[j];
        kept += product[which[j]] >= least;
    }
    return kept;
}

/* Who may be among the k nearest of some points: `many` of point r, from `which[r]` on. */
typedef struct {
    int64_t many[QUERIES];
    int32_t *which[QUERIES];
} Candidates;

/* Numbers that a block's products and candidates take. */
static inline int64_t room_of(int64_t wide) { return QUERIES * (wide + APART + MOST + FOUR) + wide + 64; }

/* The candidates of some points, from the point `start` on, and how many there are of all. `product` has room_of numbers. */
INLINE int64_t choose_by(const Rounded *own, const float *cloud, int64_t start, int64_t rows, const Sizes *size,
                         int32_t *product, Candidates *found, const int bytes) {
    int64_t quads = own->quads, step = size->wide + APART, sum = 0, fair = MANY * size->k + FLAT / size->dimensions;
    int32_t bound[QUERIES], *which = product + QUERIES * step;
    __m512i most[QUERIES * PARTS];
    for (int i = 0; i < QUERIES * PARTS; i++) most[i] = _mm512_set1_epi32(-TOP);
    for (int64_t j = 0; j < size->wide; j += 2 * LANES)
        for (int64_t r = 0; r < rows; r += TILE_ROWS)
            tile(own->rows + (start + r) * quads, own->panels + j * quads, own->half + j, quads, product + r * step + j, step,
                 most + r * PARTS + j / LANES % PARTS, bytes);
    for (int64_t r = 0; r < rows; r += TOGETHER) bounds_among(most + r * PARTS, size->k + !size->loop, bound + r);
    for (int64_t r = 0; r < rows; r++) {
        const int32_t *row = product + r * step;
        int64_t many = candidates(row, size->n, least_of(own, start + r, bound[r], size->dimensions), which);
        if (many > fair) many = narrow(own, cloud, start + r, size, row, bound[r], which, many);
        found->which[r] = which, found->many[r] = many;
        which += many > MOST ? 0 : many + FOUR;
        sum += many;
    }
    return sum;
}

/* Neighbours of these points from those who were chosen. */
static void put_in_order(const float *cloud, int64_t start, int64_t rows, const Sizes *size, const Candidates *found,
                         int64_t *index, uint8_t *doubt) {
    float value[MOST + LANES];
    for (int64_t r = 0; r < rows; r++) {
        int64_t count = found->many[r];
        int32_t *which = found->which[r];
        doubt[start + r] = count > MOST;
        if (count > MOST) continue;
        for (int64_t j = 0; j < FOUR; j++) which[count + j] = which[0];
        for (int64_t j = 0; j < count; j += FOUR) {
            const float *few[FOUR];
            for (int o = 0; o < FOUR; o++) few[o] = cloud + which[j + o] * size->dimensions;
            differences(cloud + (start + r) * size->dimensions, few, size->dimensions, value + j);
        }
        for (int64_t j = 0; j < count; j++)
            if (which[j] == start + r) value[j] = size->loop ? -INFINITY : INFINITY;
        in_order(value, which, count, size->k, NULL, index + (start + r) * size->k);
    }
}

/* points: (clouds, n, dimensions); wide: n rounded up to a multiple of 32; deep: dimensions rounded up to one of 16; index:
 * (clouds * n, k); doubt: (clouds * n), set where there are too many candidates; finite: (clouds), zero where squared
 * distances are not, whose points are all in doubt. `made`: (clouds, wide * (deep + 4)); `work`: 2 * deep for each cloud,
 * then room_of for each thread. */
void mgic_knn_rounded(const float *points, int64_t clouds, int64_t n, int64_t wide, int64_t dimensions, int64_t deep, int64_t k,
                      int64_t loop, int64_t *index, uint8_t *doubt, uint8_t *finite, int32_t *made, float *work,
                      int64_t threads) {
    int64_t blocks = wide / QUERIES, enough = ENOUGH + deep / 8 < MOST / 2 ? ENOUGH + deep / 8 : MOST / 2;
    Sizes size = {n, wide, dimensions, deep, k, loop};
    Rounded *rounded = malloc(clouds * sizeof *rounded);
    float *norm = malloc(clouds * sizeof *norm);
    uint8_t *again = malloc(clouds * blocks);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t bytes = 1, coarse = -1; bytes >= 0; bytes--) { /* then words, for the blocks that are left */
#pragma omp for schedule(dynamic)
        for (int64_t cloud = 0; cloud < clouds; cloud++) {
            const float *own = points + cloud * n * dimensions;
            float *middle = work + cloud * 2 * deep, coordinate;
            uint8_t *left = again + cloud * blocks;
            if (bytes) {
                largest(own, n, dimensions, deep, middle, middle + deep, &coordinate, norm + cloud);
                finite[cloud] = norm[cloud] < INFINITY;
                int apart = 127 / coordinate < INFINITY && 23170 / norm[cloud] < INFINITY; /* so that steps are numbers */
                memset(doubt + cloud * n, 1, n);
                memset(left, finite[cloud] && apart, blocks);
                rounded[cloud] = rounded_in(made + cloud * wide * (deep + 4), wide, deep / 4, 127 / coordinate);
                if (left[0] && deep <= DEEPEST) round_all(own, n, wide, dimensions, deep, middle, rounded + cloud, 1);
            } else if (memchr(left, 1, blocks)) {
                rounded[cloud] = rounded_in(made + cloud * wide * (deep + 4), wide, deep / 2, 23170 / norm[cloud]);
                round_all(own, n, wide, dimensions, deep, middle, rounded + cloud, 0);
            }
        }
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < clouds * blocks; task++) {
            int64_t cloud = task / blocks, start = task % blocks * QUERIES, rows = start + QUERIES < n ? QUERIES : n - start;
            Candidates found;
            const float *own = points + cloud * n * dimensions;
            int32_t *product = (int32_t *)(work + clouds * 2 * deep) + omp_get_thread_num() * room_of(wide);
            if (!again[task] || (bytes && (deep > DEEPEST || cloud == coarse))) continue;
            if (!bytes)
                choose_by(rounded + cloud, own, start, rows, &size, product, &found, 0);
            else if (choose_by(rounded + cloud, own, start, rows, &size, product, &found, 1) > enough * rows) {
                coarse = cloud; /* for its next points as well, in all likelihood */
                continue;
            }
            again[task] = 0;
            put_in_order(own, start, rows, &size, &found, index + cloud * n * k, doubt + cloud * n);
        }
    }
    free(rounded);
    free(norm);
    free(again);
}
#else
const int32_t mgic_has_vnni = 0;
void mgic_knn_rounded(const float *points, int64_t clouds, int64_t n, int64_t wide, int64_t dimensions, int64_t deep, int64_t k,
                      int64_t loop, int64_t *index, uint8_t *doubt, uint8_t *finite, int32_t *made, float *work,
                      int64_t threads) {}
#endif
