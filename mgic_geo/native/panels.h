/* Features in panels of 16 channels, row after row: what a group of channels needs lies close together, and so do the rows
 * that neighbours fetch. Rows of channels are panels, too, 16 floats apart. */
#ifndef MGIC_GEO_PANELS_H
#define MGIC_GEO_PANELS_H

#include "linear.h"

/* Channel c of row i of a cloud lies at cloud * b + step * i + panel * (c / 16) + c % 16. */
typedef struct {
    int64_t step, panel, cloud;
} Lie;

static inline Lie in_rows(int64_t size, int64_t channels) { return (Lie){channels, LANES, size * channels}; }

/* A row more keeps panels from falling on the same places of a cache. */
static inline Lie in_panels(int64_t size, int64_t channels) {
    return (Lie){LANES, (size + 1) * LANES, (size + 1) * channels};
}

INLINE int64_t channel_at(Lie lie, int64_t c) { return c / LANES * lie.panel + c % LANES; }
INLINE int64_t row_at(Lie lie, int64_t cloud, int64_t row) { return cloud * lie.cloud + row * lie.step; }

/* What a group's map reads and writes: in channels of x from the channel `from` on, out channels of y, and of start, from `to`
 * on, by w (in, out). All of these are multiples of 8; where out is one of 16, so is `to`. start may be y; like bias it may be
 * absent. */
typedef struct {
    const float *x;
    Lie x_at;
    int64_t from, in;
    const float *w;
    int64_t out;
    const float *start;
    Lie s_at;
    const float *bias;
    float *y;
    Lie y_at;
    int64_t to;
    int far; /* from the processor: READ for x and start, WRITTEN for y */
} Map;

enum { READ = 1, WRITTEN = 2 };

#define SOON 32 /* rows: the processor sees that they come, but neither the next page nor the next panel */

INLINE void ask_for(const Map *map, int64_t row, const int rows, const int64_t step) {
    const float *x = map->x + channel_at(map->x_at, map->from) + row * step;
    if (map->far & READ)
        for (int r = 0; r < rows; r++) __builtin_prefetch(x + r * step);
    if (map->far & READ && map->start) {
        const float *start = map->start + channel_at(map->s_at, map->to) + row * map->s_at.step;
        for (int r = 0; r < rows; r++) __builtin_prefetch(start + r * map->s_at.step);
    }
    if (map->far & WRITTEN) {
        float *y = map->y + channel_at(map->y_at, map->to) + row * map->y_at.step;
        for (int r = 0; r < rows; r++) __builtin_prefetch(y + r * map->y_at.step, 1);
    }
}

/* y = x w + start + bias for `rows` rows and `vectors` vectors of outputs from the o-th on, which stay in registers. The
 * compiler knows these numbers, and in panels the distance of rows. */
#define MAP_TILE(name, vector)                                                                                     \
    INLINE void name(const Map *map, int64_t row, int64_t o, const int64_t step, const int rows, const int vectors) { \
        const int lanes = sizeof(vector) / sizeof(float);                                                          \
        const float *start = map->start ? map->start + row * map->s_at.step + channel_at(map->s_at, map->to + o) : NULL; \
        float *y = map->y + row * map->y_at.step + channel_at(map->y_at, map->to + o);                             \
        vector sum[2 * ROWS][2];                                                                                   \
        for (int v = 0; v < vectors; v++)                                                                          \
            for (int r = 0; r < rows; r++)                                                                         \
                sum[r][v] = map->bias ? *(const vector *)(map->bias + o + v * lanes) : (vector){0};                \
        if (start)                                                                                                 \
            for (int v = 0; v < vectors; v++)                                                                      \
                for (int r = 0; r < rows; r++)                                                                     \
                    sum[r][v] += *(const vector *)(start + r * map->s_at.step + v * map->s_at.panel);              \
        for (int64_t done = 0; done < map->in; done += 8) {                                                        \
            const float *own = map->x + row * step + channel_at(map->x_at, map->from + done);                      \
            const float *by = map->w + done * map->out + o;                                                        \
            _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++)                                                    \
                for (int v = 0; v < vectors; v++) {                                                                \
                    vector right = *(const vector *)(by + i * map->out + v * lanes);                               \
                    for (int r = 0; r < rows; r++) sum[r][v] += own[r * step + i] * right;                         \
                }                                                                                                  \
        }                                                                                                          \
        for (int r = 0; r < rows; r++)                                                                             \
            for (int v = 0; v < vectors; v++) *(vector *)(y + r * map->y_at.step + v * map->y_at.panel) = sum[r][v]; \
    }                                                                                                              \
    INLINE void name##s(const Map *map, int64_t first, int64_t last, int64_t o, const int64_t step,               \
                        const int rows, const int vectors) {                                                       \
        for (int64_t row = first; row < last; row += rows) {                                                       \
            if (map->far && !o) ask_for(map, row + SOON, rows, step);                                              \
            name(map, row, o, step, rows, vectors);                                                                \
        }                                                                                                          \
    }
MAP_TILE(map_tile, vfloat)
MAP_TILE(map_tile_half, vhalf)

/* `rows` at a time with one vector of outputs, half as many with two. */
INLINE void map_outputs(const Map *map, int64_t first, int64_t last, const int64_t step, const int rows) {
    int64_t o = 0;
    if (map->out % LANES)
        for (; o < map->out; o += LANES / 2) map_tile_halfs(map, first, last, o, step, rows, 1);
    else {
        for (; o + 2 * LANES <= map->out; o += 2 * LANES) map_tiles(map, first, last, o, step, (rows + 1) / 2, 2);
        if (o < map->out) map_tiles(map, first, last, o, step, rows, 1);
    }
}

/* So many rows of a map. */
ONCE void map_group(Map map, int64_t rows) {
    int64_t most = rows / (2 * ROWS) * (2 * ROWS);
    if (map.x_at.step == LANES)
        map_outputs(&map, 0, most, LANES, 2 * ROWS);
    else
        map_outputs(&map, 0, most, map.x_at.step, 2 * ROWS);
    if (most < rows) map_outputs(&map, most, rows, map.x_at.step, 1);
}

/* sum (in, out) += x^T g over some rows, of in channels of x and out of g; far: as of a map. */
ONCE void outer_panels(const float *x, Lie x_at, int64_t from, int64_t in, const float *g, Lie g_at, int64_t to,
                       int64_t out, int64_t rows, float *sum, int far) {
    const float *ahead = x + SOON * x_at.step + channel_at(x_at, from);
    if (far)
        for (int64_t r = 0; r < rows; r++) __builtin_prefetch(ahead + r * x_at.step);
    for (int64_t i = 0; i < in; i += 8, sum += 8 * out) {
        const float *own = x + channel_at(x_at, from + i);
        int64_t o = 0;
        if (out % LANES == 0) {
            for (; o + 2 * LANES <= out; o += 2 * LANES)
                outer(own, x_at.step, g + channel_at(g_at, to + o), g_at.step, g_at.panel, rows, sum + o, out, 2);
            if (o < out)
                outer(own, x_at.step, g + channel_at(g_at, to + o), g_at.step, g_at.panel, rows, sum + o, out, 1);
        } else
            for (; o < out; o += LANES / 2)
                outer_half(own, x_at.step, g + channel_at(g_at, to + o), g_at.step, g_at.panel, rows, sum + o, out, 1);
    }
}

#endif
