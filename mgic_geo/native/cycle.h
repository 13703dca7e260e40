/* A multigrid cycle over edge convolutions: its sizes, its levels, and where all of them keep what. */
#ifndef MGIC_GEO_CYCLE_H
#define MGIC_GEO_CYCLE_H

#include "gather.h"

#define TURN 256  /* rows of a group that stay at hand from one step to the next */
#define PIECE 256 /* rows of a cloud with sums of their own */
#define FEW 32    /* whole rows at once, where features stand in rows */
#define LEVELS 32 /* at most: each halves the width */

/* A level, and the step from it to the next coarser one, which the coarsest level has not: `half` is 0 there. */
typedef struct {
    int64_t width, groups, group, half; /* half: channels of the next level that a group becomes */
    float slope, eps, correction_eps;
    int64_t in_rows; /* x stands in rows, as it came; all other features are in panels */
    const float *x;
    float *z, *change;                                              /* (nodes, width); no change on the finest level */
    uint8_t *best;                                                  /* likewise, ranks */
    float *mean, *var, *center, *correction_mean, *correction_var;  /* center: the mean of the next level's change */
    const float *conv, *weight, *bias;                              /* (width, 2 group), (width), (width) */
    const float *down, *up, *correction_weight, *correction_bias;   /* (next width, group), (width, half), (width), (width) */
    const float *scale, *prolong, *shift; /* of z's normalisation; the map and the bias of the correction, normalised */
} Level;

/* One map of those that lead down from the input to all levels. */
typedef struct {
    int64_t groups, in, out;
    const float *weight; /* (groups * out, in) */
} Step;

typedef struct {
    int64_t clouds, size, degree, levels, steps, rows;
    Level level[LEVELS];
    Step step[LEVELS];
    const int32_t *col;
} Cycle;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t pieces_of(int64_t size) { return (size + PIECE - 1) / PIECE; }

/* A piece of a cloud. */
typedef struct {
    int64_t cloud, first, count;
} Piece;

static inline Piece piece_of(int64_t number, int64_t size) {
    int64_t pieces = pieces_of(size), first = number % pieces * PIECE;
    return (Piece){number / pieces, first, least(PIECE, size - first)};
}

static inline Lie features_at(int64_t rows, int64_t size, int64_t channels) {
    return rows ? in_rows(size, channels) : in_panels(size, channels);
}

static inline Shape shape_of(const Cycle *cycle, const Level *level) {
    return (Shape){cycle->clouds, cycle->size, level->groups, level->group, level->group, cycle->degree};
}

/* Floats of features in panels. */
static inline int64_t panels_of(const Cycle *cycle, int64_t width) {
    return cycle->clouds * in_panels(cycle->size, width).cloud;
}

/* Moves a pointer on, and gives what it was. */
#define TAKE(pointer, count) ((pointer) += (count), (pointer) - (count))

/* plan: clouds, size, degree, levels, groups of a map ahead of the cycle or 0, channels of the input; then widths, then groups
 * of all levels. reals: of each level the activation's slope, eps of its normalisation and of its correction's. params: the
 * weight of that map, if there is one; then of each level conv, weight and bias, and but for the coarsest one down, up,
 * correction_weight and correction_bias, as Level has them. Of the arrays that levels share each has its part in turn, the
 * finest first. */
static inline Cycle cycle_of(const int64_t *plan, const float *reals, const float *x, const float *params, const int32_t *col,
                             float *nodes, float *z, uint8_t *best, float *change, float *moments) {
    Cycle cycle = {plan[0], plan[1], plan[2], plan[3], 0, plan[0] * plan[1], {{0}}, {{0}}, col};
    int64_t ahead = plan[4], in = plan[5];
    const int64_t *widths = plan + 6, *groups = widths + cycle.levels;
    if (ahead)
        cycle.step[cycle.steps++] = (Step){ahead, in / ahead, widths[0] / ahead, TAKE(params, widths[0] * (in / ahead))};
    for (int64_t j = 0; j < cycle.levels; j++) {
        Level *level = &cycle.level[j];
        int64_t width = widths[j], values = panels_of(&cycle, width);
        level->width = width, level->groups = groups[j], level->group = width / groups[j];
        level->half = j + 1 < cycle.levels ? widths[j + 1] / groups[j] : 0;
        level->slope = reals[3 * j], level->eps = reals[3 * j + 1], level->correction_eps = reals[3 * j + 2];
        level->in_rows = !j && !ahead;
        level->x = level->in_rows ? x : TAKE(nodes, values);
        level->z = TAKE(z, values), level->best = TAKE(best, values);
        if (j) level->change = TAKE(change, values);
        level->mean = TAKE(moments, width), level->var = TAKE(moments, width);
        level->conv = TAKE(params, width * 2 * level->group);
        level->weight = TAKE(params, width), level->bias = TAKE(params, width);
        if (!level->half) break;
        level->down = TAKE(params, widths[j + 1] * level->group), level->up = TAKE(params, width * level->half);
        level->correction_weight = TAKE(params, width), level->correction_bias = TAKE(params, width);
        level->correction_mean = TAKE(moments, width), level->correction_var = TAKE(moments, width);
        level->center = TAKE(moments, widths[j + 1]);
        cycle.step[cycle.steps++] = (Step){level->groups, level->group, level->half, level->down};
    }
    return cycle;
}

/* Rows that the maps of all steps work on while the second-level cache holds them. */
static inline int64_t turn_of(const Cycle *cycle) {
    int64_t channels = 1;
    for (int64_t s = 0; s < cycle->steps; s++) channels += cycle->step[s].groups * (cycle->step[s].in + cycle->step[s].out);
    int64_t fitting = CACHED / channels / FEW * FEW;
    return fitting < FEW ? FEW : least(fitting, PIECE);
}

/* Weights (groups * out, in) as matrices (groups, in, out). */
static inline const float *turned(const float *weight, int64_t groups, int64_t in, int64_t out, float *to) {
    for (int64_t g = 0; g < groups; g++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t o = 0; o < out; o++) to[(g * in + i) * out + o] = weight[(g * out + o) * in + i];
    return to;
}

/* weight / sqrt(var + eps). */
static inline const float *scale_of(const float *weight, const float *var, float eps, int64_t width, float *to) {
    for (int64_t c = 0; c < width; c++) to[c] = weight[c] / sqrtf(var[c] + eps);
    return to;
}

/* The correction's map with its normalisation, as soon as that is known; needs width * (half + 1) floats. */
static inline void correct(Level *level, float *to) {
    float *prolong = TAKE(to, level->width * level->half);
    turned(level->up, level->groups, level->half, level->group, prolong);
    for (int64_t c = 0; c < level->width; c++) {
        float scale = level->correction_weight[c] / sqrtf(level->correction_var[c] + level->correction_eps);
        float *own = prolong + c / level->group * level->half * level->group + c % level->group;
        for (int64_t h = 0; h < level->half; h++) own[h * level->group] *= scale;
        to[c] = level->correction_bias[c] - scale * level->correction_mean[c];
    }
    level->prolong = prolong, level->shift = to;
}

#endif
