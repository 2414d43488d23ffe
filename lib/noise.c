#include "noise.h"

#include "error.h"

#include <math.h>
#include <string.h>

/* Everything here uses IEEE additions, multiplications, divisions and square roots only, in a fixed
 * order and without contraction (-ffp-contract=off), so that no libm and no compiler flag can
 * change a bit. */

void fi_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Natural logarithm of x in (0, 1): x = 2^k m with m in [sqrt(1/2), sqrt(2)), log m = 2 artanh(s).
 */
static double log_unit(double x) {
    static const double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int k = (int)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFu) | ((uint64_t)1023 << 52);
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        k += 1;
    }
    double s = (m - 1.0) / (m + 1.0), s2 = s * s, sum = 0.0;
    for (int n = 23; n >= 1; n -= 2) /* |s| < 0.172: the next term is below 2^-60 */
        sum = sum * s2 + 1.0 / (double)n;
    return (double)k * ln2_high + (2.0 * (s * sum) + (double)k * ln2_low);
}

/* cos and sin of 2 pi u, u in (0, 1): u is reduced exactly to an eighth of a turn. */
static void cos_sin_turn(double u, double *cosine, double *sine) {
    double quarters = u * 4.0;
    int q = (int)(quarters + 0.5);
    double a = (quarters - (double)q) * 1.5707963267948966, a2 = a * a;
    double s = 0.0, c = 0.0;
    static const double inverse_factorial[] = {
        1.0,
        1.0,
        0.5,
        0.16666666666666666,
        0.041666666666666664,
        0.008333333333333333,
        0.001388888888888889,
        0.0001984126984126984,
        2.48015873015873e-05,
        2.7557319223985893e-06,
        2.755731922398589e-07,
        2.505210838544172e-08,
        2.08767569878681e-09,
        1.6059043836821613e-10,
        1.1470745597729725e-11,
        7.647163731819816e-13,
        4.779477332387385e-14,
        2.8114572543455206e-15,
    };
    for (int n = 8; n >= 0; n--) {
        c = inverse_factorial[2 * n] - a2 * c;
        s = inverse_factorial[2 * n + 1] - a2 * s;
    }
    s *= a;
    switch (q & 3) {
    case 0:
        *cosine = c, *sine = s;
        break;
    case 1:
        *cosine = -s, *sine = c;
        break;
    case 2:
        *cosine = -c, *sine = -s;
        break;
    default:
        *cosine = s, *sine = -c;
        break;
    }
}

static void box_muller(double out[2], uint32_t r0, uint32_t r1) {
    double u0 = ((double)r0 + 0.5) / 4294967296.0, u1 = ((double)r1 + 0.5) / 4294967296.0;
    double radius = sqrt(-2.0 * log_unit(u0)), cosine, sine;
    cos_sin_turn(u1, &cosine, &sine);
    out[0] = radius * cosine;
    out[1] = radius * sine;
}

void fi_noise(float *out, size_t count, uint64_t seed, uint32_t sample, uint32_t step,
              uint32_t stream) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (size_t first = 0; first < count; first += 4) {
        uint32_t counter[4] = {sample, step, stream, (uint32_t)(first / 4)};
        double values[4];
        fi_philox(counter, counter, key);
        box_muller(values, counter[0], counter[1]);
        box_muller(values + 2, counter[2], counter[3]);
        for (size_t i = 0; i < 4 && first + i < count; i++)
            out[first + i] = (float)values[i];
    }
}

featinv_status featinv_noise(float *out, size_t count, uint64_t seed, uint32_t sample,
                             uint32_t step) {
    if (!out && count)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "no memory given for %zu values of noise", count);
    if (count > (size_t)1 << 34)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%zu values of noise: one stream holds 2^34", count);
    fi_noise(out, count, seed, sample, step, 0);
    return FEATINV_OK;
}
