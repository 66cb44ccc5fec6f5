// Vectors of the compiler's own, and the functions of them that attention and GELU need.
//
// Included by one file for each instruction set, inside its namespace.

constexpr int LANES = W * NV; // latents in a panel

typedef float vf __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef double vd __attribute__((vector_size(4 * W)));
typedef uint64_t vl __attribute__((vector_size(4 * W)));
typedef float half __attribute__((vector_size(2 * W)));

INLINE vf load(const float *at) {
    vf v;
    __builtin_memcpy(&v, at, sizeof v);
    return v;
}

INLINE void store(float *at, vf v) { __builtin_memcpy(at, &v, sizeof v); }

INLINE vf all(float x) { return x - vf{}; }

// Up to `n` floats; the others are 0.
INLINE vf load_some(const float *at, ptrdiff_t n) {
    if (n >= W) return load(at);
    vf v = {};
    for (ptrdiff_t i = 0; i < n; i++)
        v[i] = at[i];
    return v;
}

INLINE void store_some(float *at, vf v, ptrdiff_t n) {
    if (n >= W) return store(at, v);
    for (ptrdiff_t i = 0; i < n; i++)
        at[i] = v[i];
}

// The larger one; NaN in `a` is passed over.
INLINE vf larger(vf a, vf b) { return a > b ? a : b; }

// 2^x for x <= 127, to 1e-7 of it; at least 2^-126; NaN stays.
INLINE vf exp2(vf x) {
    constexpr float magic = 12582912.0f; // 1.5 * 2^23: what is added to it is rounded
    x = x < -126.0f ? all(-126.0f) : x;
    vf shifted = x + magic;
    vf f = x - (shifted - magic);
    vf p = all(1.53707048e-4f);
    p = p * f + 1.33998483e-3f;
    p = p * f + 9.61837325e-3f;
    p = p * f + 5.55032904e-2f;
    p = p * f + 2.40226485e-1f;
    p = p * f + 6.93147206e-1f;
    p = p * f + 1.0f;
    vu power;
    __builtin_memcpy(&power, &shifted, sizeof power);
    power = (power << 23) + (127u << 23);
    vf scale;
    __builtin_memcpy(&scale, &power, sizeof scale);
    return p * scale;
}

// x * P(X < x) of a normal X, as 0.5 * x * (1 + erf(x / sqrt 2)), to 1e-7.
//
// Twice the smaller tail, erfc(|x| / sqrt 2), is 2^-p. p is a polynomial, fitted from 0 to 6 with
// the weight that its error has in the result: 9e-9 at the most there, and nothing beyond.
INLINE vf probability(vf x) {
    vf t = x < 0.0f ? -x : x;
    vf p = all(1.90111509e-6f);
    p = p * t - 2.80457488e-5f;
    p = p * t + 1.31420542e-4f;
    p = p * t + 2.72203046e-4f;
    p = p * t - 7.24558979e-3f;
    p = p * t + 5.26277312e-2f;
    p = p * t + 4.59162101e-1f;
    p = p * t + 1.15111105f;
    vf tail = 0.5f * exp2(-p * t);
    tail = t > 13.0f ? vf{} : tail;
    return x < 0.0f ? tail : 1.0f - tail;
}

INLINE vf gelu(vf x) { return x * probability(x); }

// GELU's slope from the probability: that, and x times the density.
INLINE vf gelu_slope(vf x, vf below) {
    return below + x * 0.39894228f * exp2(x * x * -0.72134752f);
}

// Cosines and sines of W/2 angles of up to 2^30 rad, in double precision; NaN of infinities.
INLINE void cos_sin(half angle, float *cos, float *sin) {
    constexpr double magic = 6755399441055744.0; // 1.5 * 2^52
    vd x = __builtin_convertvector(angle, vd);
    vd shifted = x * 0.63661977236758134 + magic;
    vd n = shifted - magic;
    vd r = x - n * 1.5707963267948966 - n * 6.123233995736766e-17;
    vd s = r * r;
    vd c = -1.1470745597729725e-11 * s + 2.0876756987868099e-9;
    c = c * s - 2.7557319223985893e-7;
    c = c * s + 2.4801587301587302e-5;
    c = c * s - 1.3888888888888889e-3;
    c = c * s + 4.1666666666666667e-2;
    c = c * s - 0.5;
    c = c * s + 1.0;
    vd i = 1.6059043836821613e-10 * s - 2.5052108385441719e-8;
    i = i * s + 2.7557319223985893e-6;
    i = i * s - 1.9841269841269841e-4;
    i = i * s + 8.3333333333333333e-3;
    i = i * s - 1.6666666666666667e-1;
    i = i * s * r + r;
    vl quarter;
    __builtin_memcpy(&quarter, &shifted, sizeof quarter);
    vl odd = quarter & 1, turn_sin = quarter & 2, turn_cos = (quarter + 1) & 2;
    vd found_cos = odd != 0 ? i : c, found_sin = odd != 0 ? c : i;
    found_cos = turn_cos != 0 ? -found_cos : found_cos;
    found_sin = turn_sin != 0 ? -found_sin : found_sin;
    half small = __builtin_convertvector(found_cos, half);
    __builtin_memcpy(cos, &small, sizeof small);
    small = __builtin_convertvector(found_sin, half);
    __builtin_memcpy(sin, &small, sizeof small);
}
