/* A cloud in integers, whose products are exact and faster than those of floats: bytes four times, 16-bit words twice. */
#ifndef MGIC_GEO_ROUNDED_H
#define MGIC_GEO_ROUNDED_H

#include "differences.h"
#include "select.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI2__)

#define TILE_ROWS 8   /* of a tile in registers, with 32 others */
#define TOP (1 << 30) /* more than half of any squared norm, and than any product */

/* Coordinates less the middle of their range, in steps: 127 are the largest coordinate in bytes, 23,170 (the root of 2^29) the
 * largest norm in words. Four bytes or two words are a quad; norms and sums are of the integers. */
typedef struct {
    int64_t quads;              /* of a point */
    float steps;                /* in a unit of the coordinates */
    int32_t *rows, *panels;     /* (wide / 8, quads, 8) and (wide / 16, quads, 16); bytes of the latter are 128 more */
    int32_t *half, *norm, *sum; /* (wide): half of the squared norm, or TOP where there is no point; that norm; 128 times the
                                   sum of bytes, 0 of words */
    float *moved;               /* (wide): how far rounding moves a point at most, in steps */
    float furthest;             /* of these */
} Rounded;

/* 32-bit numbers of that. */
static inline int64_t rounded_size(int64_t wide, int64_t quads) { return wide * (2 * quads + 4); }

static inline Rounded rounded_in(int32_t *at, int64_t wide, int64_t quads, float steps) {
    int32_t *numbers = at + 2 * wide * quads;
    float *moved = (float *)numbers + 3 * wide;
    return (Rounded){quads, steps, at, at + wide * quads, numbers, numbers + wide, numbers + 2 * wide, moved, 0};
}

/* The largest coordinate of a cloud less the `middle` of each one's range, (deep) as `top` is, and the largest norm, which is
 * infinite where squared distances are not all finite. Of features behind an activation, whose tails are on one side, the
 * middle leaves little more than half of what the mean would. */
static inline void largest(const float *points, int64_t n, int64_t dimensions, int64_t deep, float *middle, float *top,
                           float *coordinate, float *norm) {
    float most = 0, total = 0;
    __m512 each = _mm512_setzero_ps();
    for (int64_t c = 0; c < deep; c++) middle[c] = INFINITY, top[c] = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < deep; c += LANES) {
            __m512 x = (__m512)some(points + i * dimensions + c, dimensions - c);
            _mm512_storeu_ps(middle + c, _mm512_min_ps(_mm512_loadu_ps(middle + c), x));
            _mm512_storeu_ps(top + c, _mm512_max_ps(_mm512_loadu_ps(top + c), x));
        }
    for (int64_t c = 0; c < deep; c++) middle[c] = middle[c] / 2 + top[c] / 2;
    for (int64_t i = 0; i < n; i++) {
        __m512 squares = _mm512_setzero_ps();
        for (int64_t c = 0; c < deep; c += LANES) {
            __m512 x = (__m512)(some(points + i * dimensions + c, dimensions - c) - load(middle + c));
            each = _mm512_max_ps(each, _mm512_abs_ps(x));
            squares += x * x;
        }
        float square = _mm512_reduce_add_ps(squares);
        most = square > most ? square : most;
        total += square;
    }
    *coordinate = _mm512_reduce_max_ps(each);
    *norm = 4 * total < INFINITY ? sqrtf(most) : INFINITY;
}

/* 16 integers as quads. */
INLINE void to_quads(__m512i q, int32_t *quads, const int bytes) {
    if (bytes)
        _mm_storeu_si128((__m128i *)quads, _mm512_cvtepi32_epi8(q));
    else
        _mm256_storeu_si256((__m256i *)quads, _mm512_cvtepi32_epi16(q));
}

/* Rounds a cloud. */
INLINE void round_all(const float *points, int64_t n, int64_t wide, int64_t dimensions, int64_t deep, const float *middle,
                      Rounded *to, const int bytes) {
    memset(to->rows, 0, 2 * wide * to->quads * sizeof *to->rows);
    for (int64_t i = 0; i < wide; i++) {
        __m512i norm = _mm512_setzero_si512(), sum = norm;
        __m512 moved = _mm512_setzero_ps();
        int32_t *row = to->rows + i / TILE_ROWS * TILE_ROWS * to->quads + i % TILE_ROWS;
        int32_t *panel = to->panels + i / LANES * LANES * to->quads + i % LANES;
        to->half[i] = TOP;
        for (int64_t c = 0; i < n && c < deep; c += LANES) {
            __m512 x = (__m512)((some(points + i * dimensions + c, dimensions - c) - load(middle + c)) * all(to->steps));
            __m512i q = _mm512_cvtps_epi32(x);
            __m512 off = x - _mm512_cvtepi32_ps(q);
            int32_t quads[LANES / 2];
            to_quads(q, quads, bytes);
            norm = _mm512_add_epi32(norm, _mm512_mullo_epi32(q, q));
            sum = _mm512_add_epi32(sum, q);
            moved += off * off;
            for (int four = 0; four < (bytes ? 4 : 8); four++, row += TILE_ROWS, panel += LANES) {
                *row = quads[four];
                *panel = bytes ? quads[four] ^ (int32_t)0x80808080 : quads[four];
            }
        }
        if (i >= n) continue;
        to->norm[i] = _mm512_reduce_add_epi32(norm);
        to->half[i] = to->norm[i] >> 1;
        to->sum[i] = bytes ? 128 * _mm512_reduce_add_epi32(sum) : 0;
        /* x itself is rounded by 2^-23 of it at most */
        to->moved[i] = 1.001f * sqrtf(_mm512_reduce_add_ps(moved)) + 2e-7f * sqrtf((float)to->norm[i] + (float)deep);
        to->furthest = to->moved[i] > to->furthest ? to->moved[i] : to->furthest;
    }
}

/* Products of 8 rows with 32 points less half of these points' squared norms, so that the largest are the nearest; and the
 * largest of every 64th. */
INLINE void tile(const int32_t *rows, const int32_t *panel, const int32_t *half, int64_t quads, int32_t *product, int64_t step,
                 __m512i *largest, const int bytes) {
    vint sum[TILE_ROWS][2];
    for (int v = 0; v < 2; v++)
        for (int r = 0; r < TILE_ROWS; r++) sum[r][v] = -*(const vint *)(half + v * LANES);
    for (int64_t c = 0; c < quads; c += 4)
        _Pragma("GCC unroll 4") for (int one = 0; one < 4; one++) {
            const int32_t *own = rows + (c + one) * TILE_ROWS;
            __m512i other[2] = {_mm512_loadu_si512(panel + (c + one) * LANES),
                                _mm512_loadu_si512(panel + (quads + c + one) * LANES)};
            for (int r = 0; r < TILE_ROWS; r++)
                for (int v = 0; v < 2; v++) {
                    __m512i x = _mm512_set1_epi32(own[r]), so_far = (__m512i)sum[r][v];
                    sum[r][v] = (vint)(bytes ? _mm512_dpbusd_epi32(so_far, other[v], x)
                                             : _mm512_dpwssd_epi32(so_far, other[v], x));
                }
        }
    for (int r = 0; r < TILE_ROWS; r++)
        for (int v = 0; v < 2; v++) {
            *(vint *)(product + r * step + v * LANES) = sum[r][v];
            largest[r * PARTS + v] = _mm512_max_epi32(largest[r * PARTS + v], (__m512i)sum[r][v]);
        }
}

#endif
#endif
