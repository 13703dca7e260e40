/* k-nearest neighbours by products of bytes, which tell who may be near, and by differences among those.
 *
 * Coordinates are centred and rounded to steps, 127 of which are the largest. If that moves point i by r_i, distances between
 * rounded points are off by r_i + r_j at most, so the k nearest are among those within the k-th least of them and twice
 * that. Products of bytes are exact, and four times as fast as of floats. Hardly twice k points are left, whose distances are
 * then computed from the coordinates as they are. For processors with dot products of bytes (VNNI). */
#include "select.h"

#define QUERIES 32 /* points whose products are there at once */

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI2__)
const int32_t mgic_bytes = 1;

#define TILE_ROWS 8   /* of a tile in registers, with 32 others */
#define MOST 256      /* candidates of a point */
#define TOP (1 << 30) /* more than half of any squared norm */

/* A cloud in bytes; norms and sums are of these, in steps. */
typedef struct {
    int8_t *rows;               /* (wide / 8, deep / 4, 8, 4) */
    uint8_t *panels;            /* (wide / 16, deep / 4, 16, 4), 128 more; 0 where there is no point */
    int32_t *half, *norm, *sum; /* (wide): half of the squared norm, or TOP; that norm; 128 times the sum of coordinates */
    float *moved;               /* (wide): how far rounding moves a point at most, in steps */
    float furthest;             /* of these */
} Bytes;

static inline Bytes bytes_in(uint8_t *at, int64_t wide, int64_t deep) {
    int32_t *numbers = (int32_t *)(at + 2 * wide * deep);
    return (Bytes){(int8_t *)at, at + wide * deep, numbers, numbers + wide, numbers + 2 * wide, (float *)numbers + 3 * wide, 0};
}

static inline __m512 some(const float *p, int64_t count) {
    return count >= LANES ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps((__mmask16)((1 << count) - 1), p);
}

/* The largest coordinate of a cloud less its mean, (deep); infinite where squared distances are not all finite. */
static float largest(const float *points, int64_t n, int64_t dimensions, int64_t deep, float *mean) {
    __m512 most = _mm512_setzero_ps(), total = most;
    memset(mean, 0, deep * sizeof *mean);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < deep; c += LANES)
            _mm512_storeu_ps(mean + c, _mm512_loadu_ps(mean + c) + some(points + i * dimensions + c, dimensions - c));
    for (int64_t c = 0; c < deep; c++) mean[c] /= (float)n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < deep; c += LANES) {
            __m512 x = some(points + i * dimensions + c, dimensions - c) - _mm512_loadu_ps(mean + c);
            most = _mm512_max_ps(most, _mm512_abs_ps(x));
            total += x * x;
        }
    return 4 * _mm512_reduce_add_ps(total) < INFINITY ? _mm512_reduce_max_ps(most) : INFINITY;
}

/* Rounds a cloud to bytes. */
static void round_all(const float *points, int64_t n, int64_t wide, int64_t dimensions, int64_t deep, const float *mean,
                      float steps, Bytes *to) {
    float unseen = 1e-4f * sqrtf((float)dimensions); /* what rounding to floats may add */
    memset(to->rows, 0, 2 * wide * deep);
    for (int64_t i = 0; i < wide; i++) {
        __m512i norm = _mm512_setzero_si512(), sum = norm;
        __m512 moved = _mm512_setzero_ps();
        uint8_t *panel = to->panels + i / LANES * LANES * deep + i % LANES * 4;
        int8_t *row = to->rows + i / TILE_ROWS * TILE_ROWS * deep + i % TILE_ROWS * 4;
        to->half[i] = TOP;
        for (int64_t c = 0; i < n && c < deep; c += LANES) {
            __m512 x = (some(points + i * dimensions + c, dimensions - c) - _mm512_loadu_ps(mean + c)) * _mm512_set1_ps(steps);
            __m512i q = _mm512_cvtps_epi32(x);
            __m512 off = x - _mm512_cvtepi32_ps(q);
            __m128i bytes = _mm512_cvtepi32_epi8(q), more = _mm_xor_si128(bytes, _mm_set1_epi8((char)0x80));
            norm = _mm512_add_epi32(norm, _mm512_mullo_epi32(q, q));
            sum = _mm512_add_epi32(sum, q);
            moved += off * off;
            for (int four = 0; four < 4; four++) {
                memcpy(row + (c + 4 * four) * TILE_ROWS, (char *)&bytes + 4 * four, 4);
                memcpy(panel + (c + 4 * four) * LANES, (char *)&more + 4 * four, 4);
            }
        }
        if (i >= n) continue;
        to->norm[i] = _mm512_reduce_add_epi32(norm);
        to->half[i] = to->norm[i] >> 1;
        to->sum[i] = 128 * _mm512_reduce_add_epi32(sum);
        to->moved[i] = 1.001f * sqrtf(_mm512_reduce_add_ps(moved)) + unseen;
        to->furthest = to->moved[i] > to->furthest ? to->moved[i] : to->furthest;
    }
}

/* Products of 8 rows with 32 points less half of these points' squared norms, so that the largest are the nearest; and the
 * largest of every 64th. */
static inline void tile(const int8_t *rows, const uint8_t *panel, const int32_t *half, int64_t deep, int32_t *product,
                        int64_t step, __m512i *largest) {
    vint sum[TILE_ROWS][2];
    for (int v = 0; v < 2; v++)
        for (int r = 0; r < TILE_ROWS; r++) sum[r][v] = -*(const vint *)(half + v * LANES);
    for (int64_t c = 0; c < deep; c += 16)
        _Pragma("GCC unroll 4") for (int four = 0; four < 16; four += 4) {
            __m512i left = _mm512_loadu_si512(panel + (c + four) * LANES);
            __m512i right = _mm512_loadu_si512(panel + (deep + c + four) * LANES);
            for (int r = 0; r < TILE_ROWS; r++) {
                int32_t own;
                memcpy(&own, rows + (c + four) * TILE_ROWS + 4 * r, 4);
                sum[r][0] = (vint)_mm512_dpbusd_epi32((__m512i)sum[r][0], left, _mm512_set1_epi32(own));
                sum[r][1] = (vint)_mm512_dpbusd_epi32((__m512i)sum[r][1], right, _mm512_set1_epi32(own));
            }
        }
    for (int r = 0; r < TILE_ROWS; r++)
        for (int v = 0; v < 2; v++) {
            *(vint *)(product + r * step + v * LANES) = sum[r][v];
            largest[r * PARTS + v] = _mm512_max_epi32(largest[r * PARTS + v], (__m512i)sum[r][v]);
        }
}

#define TOGETHER 4 /* rows, so that one waits while others go on */

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

/* Squared distances of a point to four others by differences. */
static inline void differences(const float *point, const float *cloud, const int32_t *which, int64_t dimensions, float *to) {
    const float *other[4];
    __m512 sum[4];
    for (int j = 0; j < 4; j++) other[j] = cloud + which[j] * dimensions, sum[j] = _mm512_setzero_ps();
    for (int64_t c = 0; c + LANES <= dimensions; c += LANES)
        for (int j = 0; j < 4; j++) {
            __m512 off = _mm512_loadu_ps(point + c) - _mm512_loadu_ps(other[j] + c);
            sum[j] += off * off;
        }
    int64_t rest = dimensions % LANES;
    for (int j = 0; rest && j < 4; j++) {
        __m512 off = some(point + dimensions - rest, rest) - some(other[j] + dimensions - rest, rest);
        sum[j] += off * off;
    }
    __m512 a = _mm512_unpacklo_ps(sum[0], sum[1]) + _mm512_unpackhi_ps(sum[0], sum[1]);
    __m512 b = _mm512_unpacklo_ps(sum[2], sum[3]) + _mm512_unpackhi_ps(sum[2], sum[3]);
    __m512 all = _mm512_shuffle_ps(a, b, 0x44) + _mm512_shuffle_ps(a, b, 0xee);
    __m256 half = _mm512_castps512_ps256(all) + _mm512_extractf32x8_ps(all, 1);
    _mm_storeu_ps(to, _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1));
}

/* What a row's products must be at least for a point that may be among the k nearest. */
static inline int32_t least_of(const Bytes *bytes, int64_t i, int32_t bound, int64_t dimensions) {
    double square = (double)bytes->norm[i] - 2 * ((double)bound - bytes->sum[i]) + 1;
    double reach = sqrt(square > 0 ? square : 0) + 2 * (double)(bytes->moved[i] + bytes->furthest);
    reach *= 1 + 4e-7 * (double)(dimensions + 64); /* differences are rounded, too */
    double least = floor((bytes->norm[i] - reach * reach) / 2) - 1 + bytes->sum[i];
    return least > -TOP ? (int32_t)least : -TOP;
}

typedef struct {
    int64_t n, wide, dimensions, deep, k, loop;
} Sizes;

#define APART 48 /* numbers behind a row of products, so that rows fall on different places of a cache */

/* Neighbours of some points of a cloud, from the point `start` on. `product`: 32 (wide + 48). */
static void nearest(const float *cloud, const Bytes *bytes, int64_t start, int64_t rows, const Sizes *size, int32_t *product,
                    int64_t *index, uint8_t *doubt) {
    int64_t deep = size->deep, step = size->wide + APART, count[QUERIES];
    int32_t place[MOST + LANES], bound[QUERIES];
    float value[MOST + LANES];
    __m512i most[QUERIES * PARTS];
    for (int i = 0; i < QUERIES * PARTS; i++) most[i] = _mm512_set1_epi32(-TOP);
    for (int64_t j = 0; j < size->wide; j += 2 * LANES)
        for (int64_t r = 0; r < rows; r += TILE_ROWS)
            tile(bytes->rows + (start + r) * deep, bytes->panels + j * deep, bytes->half + j, deep, product + r * step + j,
                 step, most + r * PARTS + j / LANES % PARTS);
    for (int64_t r = 0; r < rows; r += TOGETHER) bounds_among(most + r * PARTS, size->k + !size->loop, bound + r);
    for (int64_t r = 0; r < rows; r++)
        count[r] = candidates(product + r * step, size->n, least_of(bytes, start + r, bound[r], size->dimensions));
    for (int64_t r = 0; r < rows; r++) {
        int32_t *which = product + r * step;
        doubt[start + r] = count[r] > MOST;
        if (count[r] > MOST) continue;
        for (int64_t j = 0; j < 4; j++) which[count[r] + j] = which[0];
        for (int64_t j = 0; j < count[r]; j += 4)
            differences(cloud + (start + r) * size->dimensions, cloud, which + j, size->dimensions, value + j);
        for (int64_t j = 0; j < count[r]; j++)
            if (which[j] == start + r) value[j] = size->loop ? -INFINITY : INFINITY;
        in_order(value, which, count[r], size->k, place, NULL, index + (start + r) * size->k);
    }
}

/* points: (clouds, n, dimensions); wide: n rounded up to a multiple of 32; deep: dimensions rounded up to one of 16; index:
 * (clouds * n, k); doubt: (clouds * n), set where there are too many candidates; finite: (clouds), zero where squared
 * distances are not, whose points are all in doubt. `bytes`: (clouds, wide * (2 deep + 16)); `work`: deep for each cloud,
 * then 32 (wide + 48) for each thread. */
void mgic_knn_bytes(const float *points, int64_t clouds, int64_t n, int64_t wide, int64_t dimensions, int64_t deep, int64_t k,
                    int64_t loop, int64_t *index, uint8_t *doubt, uint8_t *finite, uint8_t *bytes, float *work,
                    int64_t threads) {
    int64_t blocks = wide / QUERIES;
    Sizes size = {n, wide, dimensions, deep, k, loop};
    Bytes *made = malloc(clouds * sizeof *made);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t cloud = 0; cloud < clouds; cloud++) {
            const float *own = points + cloud * n * dimensions;
            float *mean = work + cloud * deep, most = largest(own, n, dimensions, deep, mean), steps = 127 / most;
            made[cloud] = bytes_in(bytes + cloud * wide * (2 * deep + 16), wide, deep);
            finite[cloud] = most < INFINITY;
            memset(doubt + cloud * n, 1, n);
            if (finite[cloud] && steps < INFINITY)
                round_all(own, n, wide, dimensions, deep, mean, steps, made + cloud);
            else
                made[cloud].rows = NULL;
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < clouds * blocks; task++) {
            int64_t cloud = task / blocks, start = task % blocks * QUERIES, rows = start + QUERIES < n ? QUERIES : n - start;
            int32_t *product = (int32_t *)(work + clouds * deep) + omp_get_thread_num() * QUERIES * (wide + APART);
            if (made[cloud].rows)
                nearest(points + cloud * n * dimensions, made + cloud, start, rows, &size, product, index + cloud * n * k,
                        doubt + cloud * n);
        }
    }
    free(made);
}
#else
const int32_t mgic_bytes = 0;
void mgic_knn_bytes(const float *points, int64_t clouds, int64_t n, int64_t wide, int64_t dimensions, int64_t deep, int64_t k,
                    int64_t loop, int64_t *index, uint8_t *doubt, uint8_t *finite, uint8_t *bytes, float *work,
                    int64_t threads) {}
#endif
