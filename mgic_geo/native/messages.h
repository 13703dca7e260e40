/* What edges of any graph make of their ends and their features, channel by channel. */
#ifndef MGIC_GEO_MESSAGES_H
#define MGIC_GEO_MESSAGES_H

#include "functions.h"

#define FEATURES 8 /* of an edge, at most */

/* With t, s, e of target, source and edge, f a factor of the edge and head, w maps of the edge's features: */
enum {
    RELU,    /* max(a, 0) of a = s0 + w0 e */
    SOFT,    /* the same, summed with the weights softmax(scale a) over the edges of a target */
    FILM,    /* max(t0 + t1 s0, 0) */
    GATE,    /* sigmoid(t0 + s0 + w0 e) (s1 + w1 e) */
    CRYSTAL, /* sigmoid(t0 + s0 + w0 e) softplus(t1 + s1 + w1 e) */
    WEIGHED, /* f (s0 + w0 e) */
    LEAKY,   /* the score, by head: sum over channels of t1 leaky(t0 + s0 + w0 e), t1 one row for all */
    DOT      /* the score, by head: sum over channels of t0 (s0 + w0 e) */
};

typedef struct {
    int64_t kind, targets, sources, channels, features, width; /* width: channels of a head */
    float scale; /* of the softmax, or the leaky slope */
    const int64_t *ptr, *source, *edge; /* by target */
    const float *t[2], *s[2], *w[2], *attr, *factor;
} Messages;

typedef struct {
    vfloat s0, a, b;
} Parts;

static inline int reads_t0(int kind) { return kind >= FILM && kind != WEIGHED; }
static inline int reads_t1(int kind) { return kind == FILM || kind == CRYSTAL; }
static inline int reads_s1(int kind) { return kind == GATE || kind == CRYSTAL; }

INLINE vfloat mapped(const Messages *m, const float *w, int64_t edge, int64_t c, const int features) {
    const float *attr = m->attr + edge * features;
    vfloat sum = load(w + c) * attr[0];
    for (int d = 1; d < features; d++) sum += load(w + d * m->channels + c) * attr[d];
    return sum;
}

/* What an edge makes of its ends and its features before the last function. */
INLINE Parts parts_of(const Messages *m, const int kind, const int features, int64_t j, int64_t edge, int64_t c,
                      vfloat t0, vfloat t1) {
    vfloat s0 = load(m->s[0] + j * m->channels + c);
    Parts own = {s0, s0, all(0)};
    if (kind == FILM) own.a = t0 + t1 * s0;
    if (kind == GATE || kind == CRYSTAL || kind == LEAKY) own.a = t0 + s0;
    if (reads_s1(kind)) own.b = load(m->s[1] + j * m->channels + c);
    if (kind == CRYSTAL) own.b += t1;
    if (features && kind != FILM) own.a += mapped(m, m->w[0], edge, c, features);
    if (features && reads_s1(kind)) own.b += mapped(m, m->w[1], edge, c, features);
    return own;
}

/* Calls with the number of features known to the compiler where there are none or three (positions). */
#define OF_FEATURES(call, kind, ...)                                                                              \
    (m->features == 0   ? call(m, kind, 0, __VA_ARGS__)                                                           \
     : m->features == 3 ? call(m, kind, 3, __VA_ARGS__)                                                           \
                        : call(m, kind, (int)m->features, __VA_ARGS__))
#define GRAPH                                                                                                     \
    int64_t kind, int64_t targets, int64_t sources, int64_t channels, int64_t features, int64_t width,            \
        float scale, const int64_t *ptr, const int64_t *source, const int64_t *edge, const float *t0,             \
        const float *t1, const float *s0, const float *s1, const float *attr, const float *w0, const float *w1,   \
        const float *factor
#define FILLED                                                                                                    \
    {                                                                                                             \
        kind, targets, sources, channels, features, width, scale, ptr, source, edge, {t0, t1}, {s0, s1},          \
            {w0, w1}, attr, factor                                                                                \
    }

#endif
