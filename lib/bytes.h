/* Little-endian and big-endian numbers in file bytes. */
#ifndef FI_BYTES_H
#define FI_BYTES_H

#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FI_BIG_ENDIAN_HOST 1
#else
#define FI_BIG_ENDIAN_HOST 0
#endif

static inline uint16_t fi_le16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t fi_le32(const uint8_t *p) {
    return fi_le16(p) | (uint32_t)fi_le16(p + 2) << 16;
}

static inline uint64_t fi_le64(const uint8_t *p) {
    return fi_le32(p) | (uint64_t)fi_le32(p + 4) << 32;
}

static inline uint16_t fi_be16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t fi_be32(const uint8_t *p) {
    return (uint32_t)fi_be16(p) << 16 | fi_be16(p + 2);
}

static inline void fi_put_le16(uint8_t *p, uint16_t value) {
    p[0] = (uint8_t)(value & 0xff);
    p[1] = (uint8_t)(value >> 8);
}

static inline void fi_put_le32(uint8_t *p, uint32_t value) {
    fi_put_le16(p, (uint16_t)(value & 0xffff));
    fi_put_le16(p + 2, (uint16_t)(value >> 16));
}

static inline void fi_put_le64(uint8_t *p, uint64_t value) {
    fi_put_le32(p, (uint32_t)(value & 0xffffffff));
    fi_put_le32(p + 4, (uint32_t)(value >> 32));
}

#endif
