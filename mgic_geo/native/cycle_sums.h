/* Sums over rows that a level's gradients need, and the gradient of its correction, in matrices made of them. */
#ifndef MGIC_GEO_CYCLE_SUMS_H
#define MGIC_GEO_CYCLE_SUMS_H

#include "cycle.h"

/* Adds to sums over rows of 16 channels: of the gradient behind the activation, and of its product with z - mean. */
INLINE void add_sums(const Norm *norm, int64_t c, const float *grad, const float *z, int64_t rows, float *own) {
    vfloat mean = load(norm->mean + c), scale = load(norm->scale + c), shift = load(norm->shift + c), slope = all(norm->slope);
    vfloat sum = {0}, product = {0};
    for (int64_t i = 0; i < rows; i++) {
        __builtin_prefetch(z + (i + SOON) * LANES);
        vfloat g = load(grad + i * LANES), off = load(z + i * LANES) - mean;
        g = choose(greater(off * scale + shift, all(0)), g, g * slope);
        sum += g;
        product += g * off;
    }
    store(own + c, load(own + c) + sum);
    store(own + norm->channels + c, load(own + norm->channels + c) + product);
}

static inline Norm norm_of(const Level *level) {
    return (Norm){level->width, level->mean, level->scale, level->bias, level->slope};
}

/* Sums over all rows that gradients are made of, each first for a cloud. */
typedef struct {
    float *conv;   /* (groups, group, 2 group): products of c with the gradients of u and v */
    float *bias;   /* (width): the gradient of c */
    float *by;     /* (groups, half, group): its products with the change below, less its mean */
    float *square; /* (groups, half, half): those of that with itself */
} Sums;

static inline Sums sums_in(float *at, const Level *level, int64_t parts) {
    float *conv = TAKE(at, parts * level->width * 2 * level->group), *bias = TAKE(at, parts * level->width);
    float *by = TAKE(at, parts * level->width * level->half);
    return (Sums){conv, bias, by, at};
}

/* Floats of these. */
static inline int64_t sums_size(const Level *level) {
    return level->width * (2 * level->group + 1 + level->half) + level->groups * level->half * level->half;
}

/* Matrices that make the gradient of a change below from that of N(P d): total back + d spread + constant. */
typedef struct {
    float *back, *spread, *constant; /* (groups, group, half), (groups, half, half), (groups * half) */
} Back;

/* These, and the gradients of what a correction learns, from sums over rows: N and P are linear but for the statistics. */
static Back through(const Cycle *cycle, const Level *level, Sums sums, float *grad_up, float *grad_weight, float *grad_bias,
                    float *small) {
    int64_t half = level->half, group = level->group, width = level->width;
    float rows = (float)cycle->rows;
    Back made = {small, small + width * half, small + width * half + level->groups * half * half};
    memset(made.spread, 0, level->groups * half * (half + 1) * sizeof(float));
    for (int64_t c = 0; c < width; c++) {
        int64_t g = c / group, o = c % group;
        const float *p = level->up + c * half, *by = sums.by + g * half * group + o, *square = sums.square + g * half * half;
        float rstd = 1 / sqrtf(level->correction_var[c] + level->correction_eps), scale = level->correction_weight[c] * rstd;
        float product = 0; /* the sum of gradient times (P d - mean) */
        for (int64_t h = 0; h < half; h++) product += p[h] * by[h * group];
        float slope = product * rstd * rstd / rows;
        grad_weight[c] = product * rstd;
        grad_bias[c] = sums.bias[c];
        float *spread = made.spread + g * half * half, *constant = made.constant + g * half;
        for (int64_t h = 0; h < half; h++) {
            float spreads = 0;
            for (int64_t k = 0; k < half; k++) spreads += p[k] * square[k * half + h];
            grad_up[c * half + h] = scale * (by[h * group] - slope * spreads);
            made.back[(g * group + o) * half + h] = scale * p[h];
            for (int64_t k = 0; k < half; k++) spread[k * half + h] -= p[k] * slope * scale * p[h];
            constant[h] -= p[h] * scale * sums.bias[c] / rows;
        }
    }
    for (int64_t g = 0; g < level->groups; g++)
        for (int64_t h = 0; h < half; h++)
            for (int64_t k = 0; k < half; k++)
                made.constant[g * half + h] -= level->center[g * half + k] * made.spread[(g * half + k) * half + h];
    return made;
}

#endif
