/* Exponentials of vectors, to a few units in the last place. */
#ifndef MGIC_GEO_FUNCTIONS_H
#define MGIC_GEO_FUNCTIONS_H

#include "kernels.h"

static inline vfloat larger(vfloat a, vfloat b) { return choose(greater(a, b), a, b); }
static inline vfloat relu_of(vfloat x) { return choose(greater(all(0), x), all(0), x); } /* nan for nan */
/* Where the gradient goes through max(x, 0). */
static inline vmask passes(vfloat x) { return greater(x, all(0)) | not_a_number(x); }

/* exp(x); the least normal number below -87, infinity above 88.7, nan for nan. */
static inline vfloat exp_of(vfloat x) {
    vfloat high = all(88.7228f), low = all(-87.3365f), in = choose(greater(x, high), high, x);
    in = choose(greater(low, in), low, in);
    vfloat shifted = in * all(1.442695041f) + all(12582912.0f), n = shifted - all(12582912.0f); /* rounds */
    vfloat r = in - n * all(0.693359375f) + n * all(2.12194440e-4f); /* log 2 in two parts */
    vfloat y = all(1.9875691500e-4f);
    y = y * r + all(1.3981999507e-3f);
    y = y * r + all(8.3334519073e-3f);
    y = y * r + all(4.1665795894e-2f);
    y = y * r + all(1.6666665459e-1f);
    y = y * r + all(5.0000001201e-1f);
    y = y * r * r + r + all(1);
    /* 2^n in two steps, as n may be 128. */
    vint whole = __builtin_convertvector(n, vint), half = whole >> 1;
    y = y * (vfloat)((half + 127) << 23) * (vfloat)((whole - half + 127) << 23);
    return choose(greater(x, high), all(INFINITY), y);
}

static inline vfloat sigmoid_of(vfloat x) { return all(1) / (all(1) + exp_of(-x)); }

/* log(1 + exp(x)): with e = exp(-|x|) it is max(x, 0) + 2 artanh(e / (2 + e)). */
static inline vfloat softplus_of(vfloat x) {
    vfloat e = exp_of(choose(greater(x, all(0)), -x, x)), s = e / (all(2) + e), q = s * s, y = all(1.0f / 15);
    for (int odd = 13; odd > 0; odd -= 2) y = y * q + all(1.0f / (float)odd);
    return larger(x, all(0)) + all(2) * s * y;
}

#endif
