// What our operators compute, in plain loops in double precision, from weights as they are in the
// graph. Written from the core's definition (export/graph/core.py), not from the kernels.
#ifndef KERNELS_PLAIN_H
#define KERNELS_PLAIN_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace plain {

using std::size_t;
using Doubles = std::vector<double>;

struct Sizes {
    size_t dim, latents, heads, head, pairs, hidden, windows, n, units;
};

struct Array {
    const float *floats;
    const int32_t *integers;
    const char *flags;
    double operator[](size_t i) const { return floats[i]; }
};

inline Doubles norm(const Doubles &x, const Array &weight, const Array &bias) {
    double mean = 0, square = 0;
    for (double v : x)
        mean += v / static_cast<double>(x.size());
    for (double v : x)
        square += (v - mean) * (v - mean) / static_cast<double>(x.size());
    Doubles y(x.size());
    for (size_t i = 0; i < x.size(); i++)
        y[i] = (x[i] - mean) / std::sqrt(square + 1e-5) * weight[i] + bias[i];
    return y;
}

// x @ w, w (|x|, columns)
inline Doubles times(const Doubles &x, const Array &w, size_t columns) {
    Doubles y(columns, 0.0);
    for (size_t i = 0; i < x.size(); i++)
        for (size_t j = 0; j < columns; j++)
            y[j] += x[i] * w[i * columns + j];
    return y;
}

// The first 2P numbers of a head turned, halves being pairs.
inline void turn(double *x, size_t pairs, const Doubles &cos, const Doubles &sin, double sign) {
    for (size_t i = 0; i < pairs; i++) {
        const double a = x[i], b = x[pairs + i];
        x[i] = a * cos[i] - sign * b * sin[i];
        x[pairs + i] = b * cos[i] + sign * a * sin[i];
    }
}

inline Doubles row(const Array &table, size_t at, size_t n) {
    return Doubles(table.floats + at * n, table.floats + (at + 1) * n);
}

// One latent of (D, L).
inline Doubles column(const Sizes &s, const Array &x, size_t window, size_t latent) {
    Doubles y(s.dim);
    for (size_t d = 0; d < s.dim; d++)
        y[d] = x[(window * s.dim + d) * s.latents + latent];
    return y;
}

inline Doubles softmax(Doubles score) {
    double most = -INFINITY, sum = 0;
    for (double v : score)
        most = std::max(most, v);
    for (double &v : score)
        sum += v = std::exp(v - most);
    for (double &v : score)
        v /= sum;
    return score;
}

inline double dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

inline void put(const Sizes &s, size_t window, size_t latent, const Doubles &y, Doubles &out) {
    for (size_t d = 0; d < s.dim; d++)
        out[(window * s.dim + d) * s.latents + latent] = y[d];
}

inline Doubles latent_attention(const Sizes &s, const std::vector<Array> &in) {
    const size_t c = s.heads * s.head, l = s.latents;
    Doubles out(s.windows * s.dim * l);
    for (size_t w = 0; w < s.windows; w++) {
        std::vector<Doubles> qkv, heads(l, Doubles(c, 0.0));
        for (size_t i = 0; i < l; i++) {
            qkv.push_back(times(norm(column(s, in[0], w, i), in[1], in[2]), in[3], 3 * c));
            for (size_t h = 0; h < 3 * s.heads; h++)
                turn(&qkv[i][h * s.head], s.pairs, row(in[6], i, s.pairs), row(in[7], i, s.pairs),
                     1);
        }
        for (size_t i = 0; i < l; i++) {
            for (size_t h = 0; h < s.heads; h++) {
                Doubles score;
                for (size_t j = 0; j < l; j++)
                    score.push_back(dot(&qkv[i][h * s.head], &qkv[j][c + h * s.head], s.head));
                score = softmax(score);
                for (size_t j = 0; j < l; j++)
                    for (size_t k = 0; k < s.head; k++)
                        heads[i][h * s.head + k] += score[j] * qkv[j][2 * c + h * s.head + k];
                turn(&heads[i][h * s.head], s.pairs, row(in[6], i, s.pairs), row(in[7], i, s.pairs),
                     -1);
            }
            Doubles y = times(heads[i], in[4], s.dim), x = column(s, in[0], w, i);
            for (size_t d = 0; d < s.dim; d++)
                y[d] += in[5][d] + x[d];
            put(s, w, i, y, out);
        }
    }
    return out;
}

inline Doubles feed_forward(const Sizes &s, const std::vector<Array> &in) {
    Doubles out(s.windows * s.dim * s.latents);
    for (size_t w = 0; w < s.windows; w++)
        for (size_t i = 0; i < s.latents; i++) {
            const Doubles x = column(s, in[0], w, i), normed = norm(x, in[1], in[2]);
            Doubles value = times(normed, in[3], s.hidden), gate = times(normed, in[5], s.hidden);
            for (size_t k = 0; k < s.hidden; k++) {
                const double g = gate[k] + in[6][k];
                value[k] = (value[k] + in[4][k]) * 0.5 * g * std::erfc(-g / std::sqrt(2.0));
            }
            Doubles y = times(value, in[7], s.dim);
            for (size_t d = 0; d < s.dim; d++)
                y[d] += in[8][d] + x[d];
            put(s, w, i, y, out);
        }
    return out;
}

// Cosines and sines of float32 angles, as the core has them.
inline void angles(float time, const Array &omega, size_t pairs, Doubles &cos, Doubles &sin) {
    cos.clear();
    sin.clear();
    for (size_t i = 0; i < pairs; i++) {
        const float angle = time * omega.floats[i];
        cos.push_back(std::cos(static_cast<double>(angle)));
        sin.push_back(std::sin(static_cast<double>(angle)));
    }
}

inline Doubles spike_attention(const Sizes &s, const std::vector<Array> &in) {
    const size_t c = s.heads * s.head, l = s.latents;
    Doubles out(s.windows * s.dim * l), cos, sin;
    for (size_t w = 0; w < s.windows; w++) {
        std::vector<Doubles> kv; // of the spikes that are there, turned
        for (size_t n = w * s.n; n < (w + 1) * s.n; n++) {
            if (!in[2].flags[n]) continue;
            const int32_t unit = in[0].integers[n];
            const size_t at =
                static_cast<size_t>(unit < 0 ? unit + static_cast<int32_t>(s.units) : unit);
            kv.push_back(row(in[3], at, 2 * c));
            angles(in[1].floats[n], in[7], s.pairs, cos, sin);
            for (size_t h = 0; h < 2 * s.heads; h++)
                turn(&kv.back()[h * s.head], s.pairs, cos, sin, 1);
        }
        for (size_t i = 0; i < l; i++) {
            Doubles heads(c, 0.0);
            for (size_t h = 0; h < s.heads; h++) {
                const size_t at = h * l + i;
                const Doubles query = row(in[6], at, s.head), boundary = row(in[5], at, s.head);
                Doubles score = {in[4][at]};
                for (const Doubles &one : kv)
                    score.push_back(dot(query.data(), &one[h * s.head], s.head));
                score = softmax(score);
                double *taken = &heads[h * s.head];
                for (size_t k = 0; k < s.head; k++) {
                    taken[k] = score[0] * boundary[k];
                    for (size_t n = 0; n < kv.size(); n++)
                        taken[k] += score[n + 1] * kv[n][c + h * s.head + k];
                }
                turn(taken, s.pairs, row(in[8], i, s.pairs), row(in[9], i, s.pairs), -1);
            }
            Doubles y = times(heads, in[11], s.dim);
            for (size_t d = 0; d < s.dim; d++)
                y[d] += in[12][d] + in[10][i * s.dim + d];
            put(s, w, i, y, out);
        }
    }
    return out;
}

inline Doubles query_attention(const Sizes &s, const std::vector<Array> &in) {
    const size_t c = s.heads * s.head, l = s.latents;
    const Doubles session(in[1].floats, in[1].floats + s.dim);
    const Doubles query = times(norm(session, in[3], in[4]), in[5], c);
    Doubles out(s.windows * s.n * c, 0.0), cos, sin;
    for (size_t w = 0; w < s.windows; w++) {
        std::vector<Doubles> kv;
        for (size_t i = 0; i < l; i++) {
            kv.push_back(times(norm(column(s, in[0], w, i), in[6], in[7]), in[8], 2 * c));
            for (size_t h = 0; h < s.heads; h++)
                turn(&kv[i][h * s.head], s.pairs, row(in[9], i, s.pairs), row(in[10], i, s.pairs),
                     1);
        }
        for (size_t n = 0; n < s.n; n++) {
            Doubles turned = query;
            angles(in[2].floats[w * s.n + n], in[11], s.pairs, cos, sin);
            for (size_t h = 0; h < s.heads; h++) {
                turn(&turned[h * s.head], s.pairs, cos, sin, 1);
                Doubles score;
                for (size_t i = 0; i < l; i++)
                    score.push_back(dot(&turned[h * s.head], &kv[i][h * s.head], s.head));
                score = softmax(score);
                for (size_t i = 0; i < l; i++)
                    for (size_t k = 0; k < s.head; k++)
                        out[(w * s.n + n) * c + h * s.head + k] +=
                            score[i] * kv[i][c + h * s.head + k];
            }
        }
    }
    return out;
}

inline Doubles answer(const std::string &name, const Sizes &s, const std::vector<Array> &in) {
    if (name == "LatentAttention") return latent_attention(s, in);
    if (name == "FeedForward") return feed_forward(s, in);
    if (name == "SpikeAttention") return spike_attention(s, in);
    return query_attention(s, in);
}

} // namespace plain

#endif
