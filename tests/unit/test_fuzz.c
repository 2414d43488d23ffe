/* Every reader of hostile files on damaged ones: it refuses with one line of text or reads, and a
 * sanitizer build finds nothing. FEATINV_FUZZ_ROUNDS: damaged copies of each file (400);
 * FEATINV_FUZZ_SEEDS: a folder of more files to damage. */
#include "scratch.h"

#include "array.h"
#include "file.h"
#include "safetensors.h"

static uint64_t state_of_random = 88172645463325252u;

static uint32_t random_below(uint32_t limit) {
    state_of_random ^= state_of_random << 13;
    state_of_random ^= state_of_random >> 7;
    state_of_random ^= state_of_random << 17;
    return (uint32_t)(state_of_random >> 33) % limit;
}

/* ---------------------------------------------------------------- readers -------------------- */

static featinv_status read_image(const char *path) {
    int32_t width, height;
    featinv_status status = featinv_image_read(NULL, 0, &width, &height, path, 1 << 20);
    if (status)
        return status;
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *pixels = malloc(size);
    status = featinv_image_read(pixels, size, &width, &height, path, 1 << 20);
    free(pixels);
    return status;
}

static featinv_status read_array(const char *path) {
    char **names = NULL;
    int64_t count = 0;
    void *data;
    featinv_array_info info;
    if (fi_array_names(&names, &count, path) != FEATINV_OK) {
        featinv_status status = fi_array_load(&data, &info, path, NULL, FEATINV_DTYPE_F32);
        free(data);
        return status;
    }
    featinv_status worst = FEATINV_OK;
    for (int64_t i = 0; i < count; i++) {
        featinv_status status = fi_array_load(&data, &info, path, names[i], FEATINV_DTYPE_NONE);
        worst = status ? status : worst;
        free(data);
    }
    free(names);
    return worst;
}

static featinv_status read_safetensors(const char *path) {
    fi_safetensors header;
    featinv_status status = fi_safetensors_open(&header, path);
    fi_safetensors_close(&header);
    return status;
}

static featinv_status read_by_content(const uint8_t *bytes, size_t size, const char *path) {
    if (size > 3 && (memcmp(bytes, "\x89PNG", 4) == 0 || memcmp(bytes, "\xff\xd8\xff", 3) == 0))
        return read_image(path);
    if (size > 8 && bytes[8] == '{')
        return read_safetensors(path);
    return read_array(path);
}

/* ---------------------------------------------------------------- damage --------------------- */

static uint32_t crc(const uint8_t *bytes, size_t size) {
    uint32_t value = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        value ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
    }
    return ~value;
}

/* Makes the CRCs of a damaged PNG right again, so that the damage reaches the decoder. */
static void mend_png(uint8_t *bytes, size_t size) {
    for (size_t at = 8; size - at >= 12;) {
        size_t length = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 |
                        (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (length > size - at - 12)
            return;
        uint32_t value = crc(bytes + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + length + (size_t)i] = (uint8_t)(value >> (24 - 8 * i) & 0xff);
        at += length + 12;
    }
}

static size_t damage(uint8_t *bytes, size_t size) {
    static const uint8_t extremes[] = {0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff};
    uint32_t kind = random_below(8);
    if (kind == 0)
        return random_below((uint32_t)size);
    for (uint32_t n = 1 + random_below(kind == 1 ? 20 : 3); n > 0; n--) {
        /* headers are a small part of a file and most of what can go wrong */
        size_t at = random_below((uint32_t)(random_below(2) && size > 200 ? 200 : size));
        if (random_below(4) == 0)
            at = size - 1 - at;
        if (kind < 5)
            bytes[at] ^= (uint8_t)(1u << random_below(8));
        else if (kind < 7)
            bytes[at] = extremes[random_below(6)];
        else
            bytes[at] = (uint8_t)random_below(256);
    }
    if (size > 20 && bytes[0] == 0x89 && random_below(4))
        mend_png(bytes, size);
    return size;
}

static void fuzz_file(const char *path, int rounds) {
    uint8_t *bytes;
    size_t size;
    int refused = 0;
    CHECK_OK(fi_file_read(&bytes, &size, path, 1 << 24));
    uint8_t *copy = malloc(size + 1);
    featinv_status status = read_by_content(bytes, size, path);
    if (status)
        fail_msg("%s is refused before it is damaged: %s", path, featinv_last_error());
    for (int i = 0; i < rounds; i++) {
        memcpy(copy, bytes, size);
        size_t left = damage(copy, size);
        const char *damaged = scratch_file("damaged", copy, left);
        status = read_by_content(bytes, size, damaged);
        refused += status != 0;
        if (status && (!*featinv_last_error() || strchr(featinv_last_error(), '\n')))
            fail_msg("%s: text of %s: '%s'", path, featinv_status_name(status),
                     featinv_last_error());
        if (status == FEATINV_ERROR_INTERNAL || status == FEATINV_ERROR_MEMORY)
            fail_msg("%s: %s", path, featinv_last_error());
    }
    if (refused < rounds / 20)
        fail_msg("%s: only %d of %d damaged copies are refused", path, refused, rounds);
    free(copy);
    free(bytes);
}

/* ---------------------------------------------------------------- files ---------------------- */

static int rounds(void) {
    const char *text = getenv("FEATINV_FUZZ_ROUNDS");
    return text ? atoi(text) : 400;
}

static void images(void **state) {
    (void)state;
    enum { WIDTH = 33, HEIGHT = 17 };
    uint8_t pixels[WIDTH * HEIGHT * 3];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i / 3 + random_below(9));
    featinv_image image = {pixels, WIDTH, HEIGHT, 0};
    CHECK_OK(featinv_image_write(scratch("a.png"), &image));
    CHECK_OK(featinv_image_write(scratch("a.jpg"), &image));
    fuzz_file(scratch("a.png"), rounds());
    fuzz_file(scratch("a.jpg"), rounds());
}

static void arrays(void **state) {
    (void)state;
    float data[600];
    int64_t shape[3] = {2, 3, 100};
    for (int i = 0; i < 600; i++)
        data[i] = (float)(i / 50);
    const featinv_tensor both[2] = {featinv_tensor_view(data, FEATINV_DTYPE_F32, 3, shape),
                                    featinv_tensor_view(data, FEATINV_DTYPE_I32, 2, shape + 1)};
    CHECK_OK(featinv_array_write(scratch("a.npy"), both, NULL, 1, 0));
    CHECK_OK(featinv_array_write(scratch("stored.npz"), both, NULL, 2, 0));
    CHECK_OK(featinv_array_write(scratch("deflated.npz"), both, NULL, 2, 1));
    fuzz_file(scratch("stored.npz"), rounds());
    fuzz_file(scratch("deflated.npz"), rounds());
    fuzz_file(scratch("a.npy"), rounds());
}

static void weights(void **state) {
    (void)state;
    char bytes[400] = {0};
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"},"
                         "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                         "\"b\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[24,26]}}";
    bytes[0] = (char)strlen(header);
    memcpy(bytes + 8, header, strlen(header));
    (void)scratch_file("a.safetensors", bytes, 8 + strlen(header) + 26);
    fuzz_file(scratch("a.safetensors"), rounds());
}

static void more_seeds(void **state) {
    (void)state;
    const char *folder = getenv("FEATINV_FUZZ_SEEDS");
    DIR *entries = folder ? opendir(folder) : NULL;
    if (!entries)
        skip();
    for (struct dirent *entry; (entry = readdir(entries));) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            fuzz_file(path, rounds());
    }
    closedir(entries);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images),
        cmocka_unit_test(arrays),
        cmocka_unit_test(weights),
        cmocka_unit_test(more_seeds),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
