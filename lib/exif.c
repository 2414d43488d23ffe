#include "exif.h"

#include "bytes.h"

#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };

static uint32_t number16(const uint8_t *p, bool big) {
    return big ? fi_be16(p) : fi_le16(p);
}

static uint32_t number32(const uint8_t *p, bool big) {
    return big ? fi_be32(p) : fi_le32(p);
}

/* An EXIF block is a TIFF file; the orientation stands in its first directory. */
int fi_exif_orientation(const uint8_t *bytes, size_t size) {
    for (int i = 0; i < 2 && size >= 6 && memcmp(bytes, "Exif\0", 6) == 0; i++) {
        bytes += 6; /* some writers put the prefix twice */
        size -= 6;
    }
    if (size < 8 || (memcmp(bytes, "II*", 4) != 0 && memcmp(bytes, "MM\0*", 4) != 0))
        return 0;
    bool big = bytes[0] == 'M';
    size_t offset = number32(bytes + 4, big);
    if (offset > size || size - offset < 2)
        return 0;
    size_t count = number16(bytes + offset, big);
    const uint8_t *entry = bytes + offset + 2;
    if (count > (size - offset - 2) / 12)
        count = (size - offset - 2) / 12;
    for (size_t i = 0; i < count; i++, entry += 12) {
        uint32_t type = number16(entry + 2, big);
        if (number16(entry, big) != TAG_ORIENTATION || number32(entry + 4, big) != 1 ||
            (type != TYPE_SHORT && type != TYPE_LONG))
            continue;
        uint32_t value = type == TYPE_SHORT ? number16(entry + 8, big) : number32(entry + 8, big);
        return value <= 8 ? (int)value : 0;
    }
    return 0;
}

int fi_xmp_orientation(const uint8_t *bytes, size_t size) {
    static const char name[] = "tiff:Orientation";
    const size_t length = sizeof name - 1;
    for (size_t i = 0; i + length + 3 <= size; i++) {
        const uint8_t *at = bytes + i;
        if (*at != 't' || memcmp(at, name, length) != 0)
            continue;
        at += length;
        if (*at == '>')
            at += 1;
        else if (at[0] == '=' && at[1] == '"')
            at += 2;
        else
            continue;
        if (*at >= '0' && *at <= '9')
            return *at <= '8' ? *at - '0' : 0;
    }
    return 0;
}

bool fi_orientation_swaps(int orientation) {
    return orientation >= 5 && orientation <= 8;
}

/* Each orientation maps the pixel at out (x, y) to in at first + x * along + y * down, in pixels.
 */
void fi_orient(uint8_t *out, const uint8_t *in, uint32_t width, uint32_t height, int orientation) {
    const ptrdiff_t w = (ptrdiff_t)width, h = (ptrdiff_t)height;
    const ptrdiff_t right = w - 1, bottom = (h - 1) * w;
    const struct {
        ptrdiff_t first, along, down;
    } maps[9] = {
        {0, 1, w},       {0, 1, w}, {right, -1, w},  {bottom + right, -1, -w},
        {bottom, 1, -w}, {0, w, 1}, {bottom, -w, 1}, {bottom + right, -w, -1},
        {right, w, -1},
    };
    bool swaps = fi_orientation_swaps(orientation);
    ptrdiff_t columns = swaps ? h : w, rows = swaps ? w : h;
    for (ptrdiff_t y = 0; y < rows; y++) {
        const uint8_t *from = in + 3 * (maps[orientation].first + y * maps[orientation].down);
        for (ptrdiff_t x = 0; x < columns; x++, out += 3) {
            const uint8_t *pixel = from + 3 * x * maps[orientation].along;
            out[0] = pixel[0];
            out[1] = pixel[1];
            out[2] = pixel[2];
        }
    }
}
