/* Messages along the edges of any graph, made and summed at their targets in one pass; and their gradients, for which
 * messages are made again. Nothing of edges times channels is stored.
 *
 * Threads share the channels, so that they never write to the same place. */
#include "messages.h"

#define VECTORS 4 /* of channels at once */

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

/* A target's sums for some vectors of channels. */
INLINE void sum_messages(const Messages *m, const int kind, const int features, const int vectors, int64_t i,
                         int64_t c, float *out, float *top, float *inverse) {
    int64_t at = i * m->channels + c, first = m->ptr[i], last = m->ptr[i + 1];
    vfloat t0[VECTORS], t1[VECTORS], sum[VECTORS], most[VECTORS], whole[VECTORS];
    for (int v = 0; v < vectors; v++) {
        t0[v] = reads_t0(kind) ? load(m->t[0] + at + v * LANES) : all(0);
        t1[v] = reads_t1(kind) ? load(m->t[1] + at + v * LANES) : all(0);
        sum[v] = most[v] = whole[v] = all(0);
    }
    if (kind == SOFT)
        for (int64_t p = first; p < last; p++)
            for (int v = 0; v < vectors; v++) {
                Parts own = parts_of(m, kind, features, m->source[p], m->edge[p], c + v * LANES, t0[v], t1[v]);
                vfloat score = all(m->scale) * relu_of(own.a);
                most[v] = p == first ? score : larger(score, most[v]);
            }
    for (int64_t p = first; p < last; p++)
        for (int v = 0; v < vectors; v++) {
            Parts own = parts_of(m, kind, features, m->source[p], m->edge[p], c + v * LANES, t0[v], t1[v]);
            vfloat message = message_of(kind, own);
            if (kind == WEIGHED) message *= factor_of(m, m->edge[p], c + v * LANES);
            if (kind == SOFT) {
                vfloat share = exp_of(all(m->scale) * message - most[v]);
                whole[v] += share;
                message *= share;
            }
            sum[v] += message;
        }
    for (int v = 0; v < vectors; v++) {
        if (kind == SOFT) {
            vfloat rest = first < last ? all(1) / whole[v] : all(1);
            store(top + at + v * LANES, most[v]);
            store(inverse + at + v * LANES, rest);
            sum[v] *= rest;
        }
        store(out + at + v * LANES, sum[v]);
    }
}

/* Gradients of the parts, from that of the message or the score. */
INLINE Parts slopes_of(const Messages *m, const int kind, Parts own, vfloat g, vfloat t0, vfloat t1) {
    Parts of = {all(0), all(0), all(0)};
    if (kind == RELU || kind == SOFT || kind == FILM) of.a = choose(passes(own.a), g, all(0));
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

INLINE void add_to(float *p, vfloat x) { store(p, load(p) + x); }

/* What a target's edges add to the gradients, for some vectors of channels. */
INLINE void grad_messages(const Messages *m, const int kind, const int features, const int vectors, int64_t i,
                          int64_t c, const Gradients *to) {
    int64_t at = i * m->channels + c;
    vfloat t0[VECTORS], t1[VECTORS], of_t0[VECTORS], of_t1[VECTORS], g[VECTORS];
    vfloat of_w0[VECTORS][FEATURES], of_w1[VECTORS][FEATURES];
    for (int v = 0; v < vectors; v++) {
        t0[v] = reads_t0(kind) ? load(m->t[0] + at + v * LANES) : all(0);
        t1[v] = reads_t1(kind) ? load(m->t[1] + at + v * LANES) : all(0);
        if (kind == LEAKY) t1[v] = load(m->t[1] + c + v * LANES);
        g[v] = kind == LEAKY || kind == DOT ? all(0) : load(to->grad + at + v * LANES);
        of_t0[v] = of_t1[v] = all(0);
        for (int d = 0; d < features; d++) of_w0[v][d] = of_w1[v][d] = all(0);
    }
    for (int64_t p = m->ptr[i]; p < m->ptr[i + 1]; p++) {
        int64_t edge = m->edge[p], source = m->source[p];
        for (int v = 0; v < vectors; v++) {
            int64_t own_c = c + v * LANES, place = source * m->channels + own_c;
            Parts own = parts_of(m, kind, features, source, edge, own_c, t0[v], t1[v]);
            vfloat its = g[v];
            if (kind == WEIGHED) its = g[v] * factor_of(m, edge, own_c);
            if (kind == LEAKY || kind == DOT) its = factor_of(m, edge, own_c);
            if (kind == SOFT) {
                int64_t here = at + v * LANES;
                vfloat value = relu_of(own.a), scale = all(m->scale);
                vfloat share = exp_of(scale * value - load(to->top + here)) * load(to->inverse + here);
                its = g[v] * share * (all(1) + scale * (value - load(to->out + here)));
            }
            Parts of = slopes_of(m, kind, own, its, t0[v], t1[v]);
            add_to(to->s[0] + place, of.s0);
            if (reads_s1(kind)) add_to(to->s[1] + place, of.b);
            of_t0[v] += kind == DOT ? its * own.a : of.a;
            if (kind == FILM) of_t1[v] += of.a * own.s0;
            if (kind == CRYSTAL) of_t1[v] += of.b;
            if (kind == LEAKY) of_t1[v] += its * choose(greater(own.a, all(0)), own.a, own.a * all(m->scale));
            for (int d = 0; d < features; d++) {
                vfloat x = all(m->attr[edge * features + d]);
                of_w0[v][d] += x * of.a;
                if (reads_s1(kind)) of_w1[v][d] += x * of.b;
            }
        }
    }
    for (int v = 0; v < vectors; v++) {
        int64_t own_c = c + v * LANES;
        if (reads_t0(kind)) store(to->t[0] + at + v * LANES, of_t0[v]);
        if (reads_t1(kind)) store(to->t[1] + at + v * LANES, of_t1[v]);
        if (kind == LEAKY) add_to(to->t[1] + own_c, of_t1[v]);
        for (int d = 0; d < features; d++) {
            add_to(to->w[0] + d * m->channels + own_c, of_w0[v][d]);
            if (reads_s1(kind)) add_to(to->w[1] + d * m->channels + own_c, of_w1[v][d]);
        }
    }
}

/* All targets, for the channels from `first` to `last`. */
#define ALL_TARGETS(call, kind, ...)                                                                              \
    case kind:                                                                                                    \
        for (int64_t i = 0; i < m->targets; i++) {                                                                \
            int64_t c = first;                                                                                    \
            for (; c + VECTORS * LANES <= last; c += VECTORS * LANES)                                             \
                OF_FEATURES(call, kind, VECTORS, i, c, __VA_ARGS__);                                              \
            for (; c < last; c += LANES) call(m, kind, (int)m->features, 1, i, c, __VA_ARGS__);                   \
        }                                                                                                         \
        break;

static void sum_channels(const Messages *m, int64_t first, int64_t last, float *out, float *top, float *inverse) {
    switch (m->kind) {
        ALL_TARGETS(sum_messages, RELU, out, top, inverse)
        ALL_TARGETS(sum_messages, SOFT, out, top, inverse)
        ALL_TARGETS(sum_messages, FILM, out, top, inverse)
        ALL_TARGETS(sum_messages, GATE, out, top, inverse)
        ALL_TARGETS(sum_messages, CRYSTAL, out, top, inverse)
        ALL_TARGETS(sum_messages, WEIGHED, out, top, inverse)
    }
}

static void grad_channels(const Messages *m, int64_t first, int64_t last, const Gradients *to) {
    int64_t bytes = (last - first) * (int64_t)sizeof(float);
    for (int which = 0; which < 2; which++) {
        if (to->s[which])
            for (int64_t j = 0; j < m->sources; j++) memset(to->s[which] + j * m->channels + first, 0, bytes);
        if (to->w[which])
            for (int64_t d = 0; d < m->features; d++) memset(to->w[which] + d * m->channels + first, 0, bytes);
    }
    if (m->kind == LEAKY) memset(to->t[1] + first, 0, bytes);
    switch (m->kind) {
        ALL_TARGETS(grad_messages, RELU, to)
        ALL_TARGETS(grad_messages, SOFT, to)
        ALL_TARGETS(grad_messages, FILM, to)
        ALL_TARGETS(grad_messages, GATE, to)
        ALL_TARGETS(grad_messages, CRYSTAL, to)
        ALL_TARGETS(grad_messages, WEIGHED, to)
        ALL_TARGETS(grad_messages, LEAKY, to)
        ALL_TARGETS(grad_messages, DOT, to)
    }
}

/* Where the channels of a thread begin: whole blocks of VECTORS, so that a channel is computed by the same code, and to
 * the same bits, on any number of threads; the last one takes the rest. */
static inline int64_t first_of(int64_t channels, int64_t thread, int64_t threads) {
    int64_t block = VECTORS * LANES;
    return thread == threads ? channels : channels / block * thread / threads * block;
}

/* out: (targets, channels); top, inverse: the same for a softmax: its largest exponent and one over its sum. Tables of
 * targets and sources have a row each, attr (edges, features), w (features, channels), factor (edges, heads). */
void mgic_messages(GRAPH, float *out, float *top, float *inverse, int64_t threads) {
    Messages m = FILLED;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t own = 0; own < threads; own++)
        sum_channels(&m, first_of(channels, own, threads), first_of(channels, own + 1, threads), out, top, inverse);
}

/* Gradients of all tables and maps that the kind reads; `factor` holds those of the scores for kinds that make them. */
void mgic_messages_grad(GRAPH, const float *grad, const float *out, const float *top, const float *inverse, float *of_t0,
                        float *of_t1, float *of_s0, float *of_s1, float *of_w0, float *of_w1, int64_t threads) {
    Messages m = FILLED;
    Gradients to = {grad, out, top, inverse, {of_t0, of_t1}, {of_s0, of_s1}, {of_w0, of_w1}};
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t own = 0; own < threads; own++)
        grad_channels(&m, first_of(channels, own, threads), first_of(channels, own + 1, threads), &to);
}
