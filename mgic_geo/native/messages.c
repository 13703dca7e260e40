/* Messages along the edges of any graph, made and summed at their targets in one pass, or reduced to a score of every
 * edge; and their gradients, for which messages are made again. Nothing of edges times channels is stored.
 *
 * One vector of channels at a time goes over all edges: its part of the nodes' rows fits the cache, and threads, which
 * share the channels, never write to the same place. */
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

INLINE vfloat mapped(const Messages *m, const vfloat *w, int64_t edge, const int features) {
    const float *attr = m->attr + edge * features;
    vfloat sum = w[0] * attr[0];
    for (int d = 1; d < features; d++) sum += w[d] * attr[d];
    return sum;
}

/* What an edge makes of its ends and its features before the last function. */
INLINE Parts parts_of(const Messages *m, const int kind, const int features, int64_t j, int64_t edge, int64_t c,
                      vfloat t0, vfloat t1, const vfloat *w0, const vfloat *w1) {
    vfloat s0 = load(m->s[0] + j * m->channels + c);
    Parts own = {s0, s0, all(0)};
    if (kind == FILM) own.a = t0 + t1 * s0;
    if (kind == GATE || kind == CRYSTAL || kind == LEAKY) own.a = t0 + s0;
    if (reads_s1(kind)) own.b = load(m->s[1] + j * m->channels + c);
    if (kind == CRYSTAL) own.b += t1;
    if (features && kind != FILM) own.a += mapped(m, w0, edge, features);
    if (features && reads_s1(kind)) own.b += mapped(m, w1, edge, features);
    return own;
}

INLINE vfloat message_of(const int kind, Parts own) {
    if (kind == GATE) return sigmoid_of(own.a) * own.b;
    if (kind == CRYSTAL) return sigmoid_of(own.a) * softplus_of(own.b);
    return kind == WEIGHED ? own.a : relu_of(own.a);
}

/* The factors of an edge for the heads that a vector of channels belongs to. */
INLINE vfloat factor_of(const Messages *m, int64_t edge, int64_t c) {
    const float *own = m->factor + edge * (m->channels / m->width) + c / m->width;
    if (m->width >= LANES) return all(own[0]);
    float x = own[0], y = own[1];
    return (vfloat){x, x, x, x, x, x, x, x, y, y, y, y, y, y, y, y};
}

INLINE void maps_of(const Messages *m, int64_t c, const int features, vfloat *w0, vfloat *w1) {
    for (int d = 0; d < features; d++) {
        w0[d] = load(m->w[0] + d * m->channels + c);
        w1[d] = m->w[1] ? load(m->w[1] + d * m->channels + c) : all(0);
    }
}

INLINE void sum_messages(const Messages *m, const int kind, const int features, int64_t c, float *out, float *top,
                         float *inverse) {
    vfloat w0[FEATURES], w1[FEATURES], none = all(0);
    maps_of(m, c, features, w0, w1);
    for (int64_t i = 0; i < m->targets; i++) {
        int64_t at = i * m->channels + c, first = m->ptr[i], last = m->ptr[i + 1];
        vfloat t0 = reads_t0(kind) ? load(m->t[0] + at) : none, t1 = reads_t1(kind) ? load(m->t[1] + at) : none;
        vfloat sum = none, most = none, whole = none;
        if (kind == SOFT)
            for (int64_t p = first; p < last; p++) {
                Parts own = parts_of(m, kind, features, m->source[p], m->edge[p], c, t0, t1, w0, w1);
                vfloat score = all(m->scale) * relu_of(own.a);
                most = p == first ? score : larger(score, most);
            }
        for (int64_t p = first; p < last; p++) {
            Parts own = parts_of(m, kind, features, m->source[p], m->edge[p], c, t0, t1, w0, w1);
            vfloat message = message_of(kind, own);
            if (kind == WEIGHED) message *= factor_of(m, m->edge[p], c);
            if (kind == SOFT) {
                vfloat share = exp_of(all(m->scale) * message - most);
                whole += share;
                message *= share;
            }
            sum += message;
        }
        if (kind == SOFT) {
            vfloat rest = first < last ? all(1) / whole : all(1);
            store(top + at, most);
            store(inverse + at, rest);
            sum *= rest;
        }
        store(out + at, sum);
    }
}

/* Gradients of the parts, from that of the message or, times t1, of the score. */
INLINE Parts slopes_of(const Messages *m, const int kind, Parts own, vfloat g, vfloat t0, vfloat t1) {
    Parts of = {all(0), all(0), all(0)};
    if (kind == RELU || kind == SOFT || kind == FILM) of.a = choose(greater(own.a, all(0)), g, all(0));
    if (kind == GATE || kind == CRYSTAL) {
        vfloat gate = sigmoid_of(own.a), value = kind == GATE ? own.b : softplus_of(own.b);
        of.a = g * value * gate * (all(1) - gate);
        of.b = kind == GATE ? g * gate : g * gate * sigmoid_of(own.b);
    }
    if (kind == WEIGHED) of.a = g;
    if (kind == LEAKY) of.a = g * t1 * choose(greater(own.a, all(0)), all(1), all(m->scale));
    if (kind == DOT) of.a = g * t0;
    of.s0 = kind == FILM ? of.a * t1 : of.a;
    return of;
}

typedef struct {
    const float *grad, *out, *top, *inverse; /* the last three of a softmax */
    float *t[2], *s[2], *w[2];
} Gradients;

INLINE void grad_messages(const Messages *m, const int kind, const int features, int64_t c, const Gradients *to) {
    vfloat w0[FEATURES], w1[FEATURES], of_w0[FEATURES], of_w1[FEATURES], none = all(0), of_row = none;
    maps_of(m, c, features, w0, w1);
    for (int d = 0; d < features; d++) of_w0[d] = of_w1[d] = none;
    for (int64_t j = 0; j < m->sources; j++) {
        store(to->s[0] + j * m->channels + c, none);
        if (reads_s1(kind)) store(to->s[1] + j * m->channels + c, none);
    }
    vfloat row = kind == LEAKY ? load(m->t[1] + c) : none;
    for (int64_t i = 0; i < m->targets; i++) {
        int64_t at = i * m->channels + c;
        vfloat t0 = reads_t0(kind) ? load(m->t[0] + at) : none, t1 = reads_t1(kind) ? load(m->t[1] + at) : row;
        vfloat of_t0 = none, of_t1 = none, g = kind == LEAKY || kind == DOT ? none : load(to->grad + at);
        vfloat most = none, rest = none, result = none;
        if (kind == SOFT) most = load(to->top + at), rest = load(to->inverse + at), result = load(to->out + at);
        for (int64_t p = m->ptr[i]; p < m->ptr[i + 1]; p++) {
            int64_t edge = m->edge[p], source = m->source[p] * m->channels + c;
            Parts own = parts_of(m, kind, features, m->source[p], edge, c, t0, t1, w0, w1);
            vfloat its = g;
            if (kind == WEIGHED) its = g * factor_of(m, edge, c);
            if (kind == LEAKY || kind == DOT) its = factor_of(m, edge, c);
            if (kind == SOFT) {
                vfloat value = relu_of(own.a), scale = all(m->scale);
                its = g * exp_of(scale * value - most) * rest * (all(1) + scale * (value - result));
            }
            Parts of = slopes_of(m, kind, own, its, t0, t1);
            store(to->s[0] + source, load(to->s[0] + source) + of.s0);
            if (reads_s1(kind)) store(to->s[1] + source, load(to->s[1] + source) + of.b);
            of_t0 += kind == DOT ? its * own.a : of.a;
            of_t1 += kind == FILM ? of.a * own.s0 : of.b;
            if (kind == LEAKY) of_row += its * choose(greater(own.a, none), own.a, own.a * all(m->scale));
            for (int d = 0; d < features; d++) {
                vfloat x = all(m->attr[edge * features + d]);
                of_w0[d] += x * of.a;
                of_w1[d] += x * of.b;
            }
        }
        if (reads_t0(kind)) store(to->t[0] + at, of_t0);
        if (reads_t1(kind)) store(to->t[1] + at, of_t1);
    }
    if (kind == LEAKY) store(to->t[1] + c, of_row);
    for (int d = 0; d < features; d++) {
        store(to->w[0] + d * m->channels + c, of_w0[d]);
        if (reads_s1(kind)) store(to->w[1] + d * m->channels + c, of_w1[d]);
    }
}

/* The sums over heads of a vector of 16 products. */
INLINE void add_heads(vfloat x, int64_t width, float *to) {
    typedef float four __attribute__((vector_size(16), aligned(4)));
    float lane[LANES];
    store(lane, x);
    four low = *(four *)lane + *(four *)(lane + 4), high = *(four *)(lane + 8) + *(four *)(lane + 12);
    float first = low[0] + low[1] + low[2] + low[3], second = high[0] + high[1] + high[2] + high[3];
    to[0] += width < LANES ? first : first + second;
    if (width < LANES) to[1] += second;
}

/* The scores of the edges of one target; row by row, as they sum over channels. */
INLINE void scores_of(const Messages *m, const int kind, const int features, int64_t i, float *out) {
    int64_t channels = m->channels, heads = channels / m->width;
    for (int64_t p = m->ptr[i]; p < m->ptr[i + 1]; p++) {
        float *own = out + m->edge[p] * heads;
        memset(own, 0, heads * sizeof(float));
        for (int64_t c = 0; c < channels; c += LANES) {
            vfloat w0[FEATURES] = {0}, w1[FEATURES] = {0}, t0 = load(m->t[0] + i * channels + c);
            maps_of(m, c, features, w0, w1);
            Parts parts = parts_of(m, kind, features, m->source[p], m->edge[p], c, t0, all(0), w0, w1);
            vfloat value = choose(greater(parts.a, all(0)), parts.a, parts.a * all(m->scale));
            add_heads(kind == DOT ? t0 * parts.a : load(m->t[1] + c) * value, m->width, own + c / m->width);
        }
    }
}

/* Calls with the kind and the number of features known to the compiler: none, three (positions) or any. */
#define OF_FEATURES(call, kind, ...)                                                                              \
    (m->features == 0   ? call(m, kind, 0, __VA_ARGS__)                                                           \
     : m->features == 3 ? call(m, kind, 3, __VA_ARGS__)                                                           \
                        : call(m, kind, (int)m->features, __VA_ARGS__))
#define CASE(call, kind, ...)                                                                                     \
    case kind: OF_FEATURES(call, kind, __VA_ARGS__); break;

static void sum_vector(const Messages *m, int64_t c, float *out, float *top, float *inverse) {
    switch (m->kind) {
        CASE(sum_messages, RELU, c, out, top, inverse)
        CASE(sum_messages, SOFT, c, out, top, inverse)
        CASE(sum_messages, FILM, c, out, top, inverse)
        CASE(sum_messages, GATE, c, out, top, inverse)
        CASE(sum_messages, CRYSTAL, c, out, top, inverse)
        CASE(sum_messages, WEIGHED, c, out, top, inverse)
    }
}

static void grad_vector(const Messages *m, int64_t c, const Gradients *to) {
    switch (m->kind) {
        CASE(grad_messages, RELU, c, to)
        CASE(grad_messages, SOFT, c, to)
        CASE(grad_messages, FILM, c, to)
        CASE(grad_messages, GATE, c, to)
        CASE(grad_messages, CRYSTAL, c, to)
        CASE(grad_messages, WEIGHED, c, to)
        CASE(grad_messages, LEAKY, c, to)
        CASE(grad_messages, DOT, c, to)
    }
}

static void score_target(const Messages *m, int64_t i, float *out) {
    switch (m->kind) {
        CASE(scores_of, LEAKY, i, out)
        CASE(scores_of, DOT, i, out)
    }
}

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

/* out: (targets, channels); top, inverse: the same for a softmax: its largest exponent and one over its sum. Tables of
 * targets and sources have a row each, attr (edges, features), w (features, channels), factor (edges, heads). */
void mgic_messages(GRAPH, float *out, float *top, float *inverse, int64_t threads) {
    Messages m = FILLED;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t c = 0; c < channels; c += LANES) sum_vector(&m, c, out, top, inverse);
}

/* Gradients of all tables and maps that the kind reads; `factor` holds those of the scores for kinds that make them. */
void mgic_messages_grad(GRAPH, const float *grad, const float *out, const float *top, const float *inverse, float *of_t0,
                        float *of_t1, float *of_s0, float *of_s1, float *of_w0, float *of_w1, int64_t threads) {
    Messages m = FILLED;
    Gradients to = {grad, out, top, inverse, {of_t0, of_t1}, {of_s0, of_s1}, {of_w0, of_w1}};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t c = 0; c < channels; c += LANES) grad_vector(&m, c, &to);
}

/* out: (edges, heads). */
void mgic_scores(GRAPH, float *out, int64_t threads) {
    Messages m = FILLED;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t i = 0; i < targets; i++) score_target(&m, i, out);
}
