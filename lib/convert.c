#include "convert.h"

#include "tensor.h"

#include <string.h>

float fi_half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t magnitude = half & 0x7fffu;
    uint32_t bits;
    if (magnitude >= 0x7c00u) { /* infinity, NaN with its payload */
        bits = sign | 0x7f800000u | (magnitude & 0x3ffu) << 13;
    } else if (magnitude >= 0x400u) { /* normal: the exponent's bias goes from 15 to 127 */
        bits = sign | ((magnitude << 13) + ((127u - 15u) << 23));
    } else { /* zero, subnormal: a multiple of 2^-24 */
        float value = (float)magnitude * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    }
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

float fi_bfloat_to_float(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

uint16_t fi_float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) /* NaN */
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: a multiple of 2^-24; adding 0.5 rounds to one */
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        memcpy(&bits, &shifted, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    uint32_t odd = magnitude >> 13 & 1u;
    return (uint16_t)(sign | ((magnitude - ((127u - 15u) << 23) + 0xfffu + odd) >> 13));
}

bool fi_can_convert(featinv_dtype to, featinv_dtype from) {
    if (fi_dtype_size(to) == 0 || fi_dtype_size(from) == 0)
        return false;
    return to == from || to == FEATINV_DTYPE_F32 || to == FEATINV_DTYPE_F64;
}

#define CASE(dtype, type, read)                                                                    \
    case dtype: {                                                                                  \
        const type *values = in;                                                                   \
        for (size_t i = 0; i < count; i++)                                                         \
            out[i] = read;                                                                         \
        break;                                                                                     \
    }

/* One function for each floating target: T is float or double. */
#define CONVERTER(name, T)                                                                         \
    static void name(T *out, const void *in, featinv_dtype from, size_t count) {                   \
        switch (from) {                                                                            \
            CASE(FEATINV_DTYPE_F32, float, (T)values[i])                                           \
            CASE(FEATINV_DTYPE_F64, double, (T)values[i])                                          \
            CASE(FEATINV_DTYPE_F16, uint16_t, (T)fi_half_to_float(values[i]))                      \
            CASE(FEATINV_DTYPE_BF16, uint16_t, (T)fi_bfloat_to_float(values[i]))                   \
            CASE(FEATINV_DTYPE_U8, uint8_t, (T)values[i])                                          \
            CASE(FEATINV_DTYPE_BOOL, uint8_t, (T)(values[i] != 0))                                 \
            CASE(FEATINV_DTYPE_I8, int8_t, (T)values[i])                                           \
            CASE(FEATINV_DTYPE_I16, int16_t, (T)values[i])                                         \
            CASE(FEATINV_DTYPE_U16, uint16_t, (T)values[i])                                        \
            CASE(FEATINV_DTYPE_I32, int32_t, (T)values[i])                                         \
            CASE(FEATINV_DTYPE_U32, uint32_t, (T)values[i])                                        \
            CASE(FEATINV_DTYPE_I64, int64_t, (T)values[i])                                         \
            CASE(FEATINV_DTYPE_U64, uint64_t, (T)values[i])                                        \
        default:                                                                                   \
            break;                                                                                 \
        }                                                                                          \
    }

CONVERTER(to_float, float)
CONVERTER(to_double, double)

void fi_convert(void *out, featinv_dtype to, const void *in, featinv_dtype from, size_t count) {
    if (to == from) {
        if (count > 0)
            memcpy(out, in, count * fi_dtype_size(to));
    } else if (to == FEATINV_DTYPE_F32) {
        to_float(out, in, from, count);
    } else if (to == FEATINV_DTYPE_F64) {
        to_double(out, in, from, count);
    }
}

void fi_swap_bytes(void *values, size_t element, size_t count) {
    uint8_t *at = values;
    for (size_t i = 0; i < count; i++, at += element)
        for (size_t low = 0, high = element; low + 1 < high; low++) {
            high--;
            uint8_t byte = at[low];
            at[low] = at[high];
            at[high] = byte;
        }
}
