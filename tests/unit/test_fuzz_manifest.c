/* Hostile manifests: whatever the text, opening the bundle succeeds or is refused with one line,
 * and a sanitizer build finds nothing. FEATINV_FUZZ_ROUNDS: copies with damaged bytes (400). */
#include "bundle_maker.h"

#include "bundle.h"
#include "manifest.h"

#include <ctype.h>
#include <jansson.h>

static char *good; /* text of the manifest of a bundle that opens */
static size_t good_size;

static uint64_t state_of_random = 88172645463325252u;

static uint32_t random_below(uint32_t limit) {
    state_of_random ^= state_of_random << 13;
    state_of_random ^= state_of_random >> 7;
    state_of_random ^= state_of_random << 17;
    return (uint32_t)(state_of_random >> 33) % limit;
}

static int setup(void **state) {
    (void)state;
    uint8_t *bytes;
    make_bundle();
    CHECK_OK(fi_file_read(&bytes, &good_size, in_bundle("manifest.json"), 1 << 20));
    good = (char *)bytes;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    free(good);
    remove_bundle();
    return 0;
}

/* ---------------------------------------------------------------- one manifest --------------- */

static void check_answer(featinv_status status, const char *text, size_t size) {
    const char *error = featinv_last_error();
    bool allowed = status == FEATINV_OK || (status <= FEATINV_ERROR_WRITE && *error);
    if (!allowed || (status && strpbrk(error, "\n\r")) ||
        strcmp(featinv_status_name(status), "unknown status") == 0)
        fail_msg("%s: \"%s\" for %.*s", featinv_status_name(status), error,
                 (int)(size > 3000 ? 3000 : size), text);
}

static int64_t volume(int64_t a, int64_t b, int64_t c) {
    return a * b * c; /* each at most 2^20 */
}

/* A bundle that is let in must also be usable, or say why not. Only where it stays small: a
 * manifest may well ask for more memory than there is. */
static void use(featinv_model *model) {
    enum { SMALL = 4096 };
    static float maps[SMALL], latents[SMALL];
    featinv_model_details info = {.struct_size = sizeof info};
    featinv_session *session = NULL;
    featinv_sample_options options;
    CHECK_OK(featinv_model_info(&info, model));
    int64_t map_shape[4] = {1, info.channels, info.height, info.width};
    int64_t latent_shape[4] = {1, info.latent[0], info.latent[1], info.latent[2]};
    if (!info.has_generator || volume(info.channels, info.height, info.width) > SMALL ||
        volume(info.latent[0], info.latent[1], info.latent[2]) > SMALL)
        return;
    featinv_tensor m = featinv_tensor_view(maps, FEATINV_DTYPE_F32, 4, map_shape);
    featinv_tensor z = featinv_tensor_view(latents, FEATINV_DTYPE_F32, 4, latent_shape);
    CHECK_OK(featinv_session_create(&session, model, NULL));
    CHECK_OK(featinv_sample_options_init(&options, sizeof options, model));
    options.steps = 2;
    featinv_status status = featinv_sample(NULL, &z, session, &m, &options);
    if (status == FEATINV_ERROR_ARGUMENT) /* a default that does not fit the schedule */
        status = FEATINV_OK;
    check_answer(status, featinv_model_manifest(model), strlen(featinv_model_manifest(model)));
    featinv_session_destroy(session);
}

/* Parses an exact copy, so that a read beyond the text is seen. */
static featinv_status parse(const char *text, size_t size) {
    fi_bundle *bundle = calloc(1, sizeof *bundle);
    uint8_t *exact = malloc(size ? size : 1);
    if (size)
        memcpy(exact, text, size);
    featinv_status status = fi_manifest_parse(bundle, exact, size);
    check_answer(status, text, size);
    free(exact);
    fi_bundle_close(bundle);
    return status;
}

static featinv_status open_with(const char *text, size_t size) {
    featinv_model *model = NULL;
    featinv_status parsed = parse(text, size);
    (void)unlink(in_bundle("manifest.json"));
    FILE *file = fopen(in_bundle("manifest.json"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    featinv_status status = featinv_model_open(&model, bundle_dir, NULL);
    check_answer(status, text, size);
    if (parsed && !status)
        fail_msg("opens although its manifest does not parse: %.*s", (int)size, text);
    assert_true((model != NULL) == (status == FEATINV_OK));
    if (model)
        use(model);
    featinv_model_release(model);
    return status;
}

static void must_refuse(const char *text, size_t size, const char *why) {
    featinv_status status = open_with(text, size);
    if (status != FEATINV_ERROR_BUNDLE && status != FEATINV_ERROR_HASH &&
        status != FEATINV_ERROR_VERSION)
        fail_msg("%s: %s: %.*s", why, featinv_status_name(status), (int)(size > 3000 ? 3000 : size),
                 text);
}

/* ---------------------------------------------------------------- damaged text --------------- */

static void every_truncation_refuses(void **state) {
    (void)state;
    CHECK_OK(open_with(good, good_size));
    for (size_t size = 0; size < good_size; size++)
        if (parse(good, size) != FEATINV_ERROR_BUNDLE)
            fail_msg("%zu of %zu bytes parse", size, good_size);
    for (size_t size = 0; size < good_size; size += 97)
        must_refuse(good, size, "truncated");
}

static void damaged_bytes(void **state) {
    (void)state;
    static const char extremes[] = {0x00, 0x01, 0x7f, (char)0x80, (char)0xff, '"', '\\', '{',
                                    '}',  '[',  ']',  ',',        ':',        '-', '9',  'e'};
    const char *given = getenv("FEATINV_FUZZ_ROUNDS");
    int rounds = given ? atoi(given) : 400, refused = 0;
    char *copy = malloc(good_size);
    for (int i = 0; i < rounds; i++) {
        memcpy(copy, good, good_size);
        size_t size = good_size;
        for (uint32_t n = 1 + random_below(4); n > 0; n--) {
            size_t at = random_below((uint32_t)size), length = random_below(40);
            switch (random_below(4)) {
            case 0:
                copy[at] = (char)(copy[at] ^ 1 << random_below(8));
                break;
            case 1:
                copy[at] = extremes[random_below(sizeof extremes)];
                break;
            case 2: /* a piece is lost */
                length = length < size - at ? length : size - at - 1;
                memmove(copy + at, copy + at + length, size - at - length);
                size -= length;
                break;
            default: /* one piece overwrites another */
                memmove(copy + random_below((uint32_t)(size - length)), copy + at / 2,
                        length < size - at ? length : 1);
            }
        }
        refused += open_with(copy, size) != FEATINV_OK;
    }
    free(copy);
    if (refused < rounds / 2)
        fail_msg("only %d of %d damaged manifests are refused", refused, rounds);
}

/* The good text with `length` bytes at `at` replaced. The caller frees it. */
static char *spliced(size_t at, size_t length, const char *fresh, size_t *size) {
    size_t added = strlen(fresh);
    char *text = malloc(good_size + added + 1);
    *size = good_size - length + added;
    memcpy(text, good, at);
    memcpy(text + at, fresh, added);
    memcpy(text + at + added, good + at + length, good_size - at - length);
    return text;
}

static void every_number_replaced(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool refused; /* whatever it stands for */
    } cases[] = {
        {"1e999", true},
        {"-1e999", true},
        {"NaN", true},
        {"Infinity", true},
        {"0x10", true},
        {"01", true},
        {"1.", true},
        {"- 1", true},
        {"+1", true},
        {"99999999999999999999", true},
        {"-1e308", true},
        {"-9223372036854775808", true},
        {"-2147483649", true},
        {"9223372036854775807", false},
        {"4294967297", false},
        {"2147483648", false},
        {"2147483647", false},
        {"1e308", false},
        {"4.9e-324", false},
        {"1e-400", false},
        {"-0", false},
        {"0", false},
        {"0.5", false},
        {"1048576", false},
        {"65536.000001", false},
        {"3.0", false},
    };
    int numbers = 0;
    bool quoted = false;
    for (size_t at = 0; at < good_size; at++) {
        quoted ^= good[at] == '"';
        if (quoted || !isdigit((unsigned char)good[at]))
            continue;
        size_t end = at, size;
        while (end < good_size && strchr("0123456789.", good[end]))
            end++;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            char *text = spliced(at, end - at, cases[i].text, &size);
            if (cases[i].refused)
                must_refuse(text, size, cases[i].text);
            else
                (void)open_with(text, size);
            free(text);
        }
        at = end - 1;
        numbers++;
    }
    assert_int_equal(numbers, 40); /* the loop did find them all */
}

static void every_string_spoilt(void **state) {
    (void)state;
    static const char *const cases[] = {"\\u0000",  "\\n",          "\\ud800", "\xff",
                                        "\xc0\xaf", "\xed\xa0\x80", "\n",      "\\x",
                                        "../",      "%s%n",         "\\u202e", "\x01"};
    bool opens = false;
    for (size_t at = 0; at < good_size; at++) {
        if (good[at] != '"' || (opens = !opens) == false)
            continue;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            size_t size;
            char *text = spliced(at + 1, 0, cases[i], &size);
            featinv_status status = open_with(text, size);
            if (!status && strchr("\xff\xc0\xed\n\x01", cases[i][0]))
                fail_msg("no JSON, but opens: %.*s", (int)size, text);
            free(text);
        }
    }
}

/* ---------------------------------------------------------------- damaged structure ---------- */

enum { MAX_SLOTS = 200 };

/* Places in the document: a member of an object, or an element of an array. */
typedef struct slot {
    json_t *parent;
    const char *key;
    size_t index;
} slot;

static int find_slots(slot *slots, int count, json_t *node) {
    const char *key;
    size_t index;
    json_t *value;
    json_object_foreach(node, key, value) {
        assert_true(count < MAX_SLOTS);
        slots[count++] = (slot){node, key, 0};
        count = find_slots(slots, count, value);
    }
    json_array_foreach(node, index, value) {
        assert_true(count < MAX_SLOTS);
        slots[count++] = (slot){node, NULL, index};
        count = find_slots(slots, count, value);
    }
    return count;
}

static json_t *document(slot *slots, int *count) {
    json_error_t error;
    json_t *root = json_loadb(good, good_size, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(root);
    *count = find_slots(slots, 0, root);
    assert_true(*count > 60);
    return root;
}

static json_t *value_at(const slot *s) {
    return s->key ? json_object_get(s->parent, s->key) : json_array_get(s->parent, s->index);
}

static void set_value(const slot *s, json_t *fresh) {
    assert_int_equal(s->key ? json_object_set(s->parent, s->key, fresh)
                            : json_array_set(s->parent, s->index, fresh),
                     0);
}

static featinv_status open_json(const json_t *root) {
    char *text = json_dumps(root, JSON_COMPACT);
    assert_non_null(text);
    featinv_status status = open_with(text, strlen(text));
    free(text);
    return status;
}

static void every_value_of_another_type(void **state) {
    (void)state;
    enum { LONG = 70000 };
    slot slots[MAX_SLOTS];
    int count, refused = 0, tried = 0;
    json_t *root = document(slots, &count);
    char *longest = malloc(LONG + 1);
    memset(longest, 'a', LONG);
    longest[LONG] = '\0';
    json_t *values = json_pack("[n,b,b,s,s,s,i,i,f,[],{},[[]],[i,i,i,i],{s:i}]", 1, 0, "", "x",
                               longest, 0, -1, 0.5, 1, 2, 3, 4, "a", 1);
    assert_non_null(values);
    for (int i = 0; i < count; i++) {
        size_t k;
        json_t *value, *before = json_incref(value_at(&slots[i]));
        json_array_foreach(values, k, value) {
            set_value(&slots[i], value);
            refused += open_json(root) != FEATINV_OK;
            tried++;
        }
        set_value(&slots[i], before);
        json_decref(before);
    }
    CHECK_OK(open_json(root)); /* all was put back */
    json_decref(values);
    json_decref(root);
    free(longest);
    if (refused < tried * 3 / 4)
        fail_msg("only %d of %d are refused", refused, tried);
}

static void every_missing_key_refuses(void **state) {
    (void)state;
    slot slots[MAX_SLOTS];
    int count = 1, keys = 0;
    for (int i = 0; i < count; i++) {
        json_t *root = document(slots, &count);
        if (slots[i].key) {
            char key[300];
            (void)snprintf(key, sizeof key, "%s", slots[i].key);
            assert_int_equal(json_object_del(slots[i].parent, key), 0);
            bool optional = strcmp(key, "provenance") == 0;
            featinv_status status = open_json(root);
            if (status != (optional ? FEATINV_OK : FEATINV_ERROR_BUNDLE))
                fail_msg("without %s: %s: %s", key, featinv_status_name(status),
                         status ? featinv_last_error() : "");
            keys++;
        }
        json_decref(root);
    }
    assert_int_equal(keys, 74);
}

static void every_key_twice_refuses(void **state) {
    (void)state;
    slot slots[MAX_SLOTS];
    int count;
    json_t *root = document(slots, &count);
    for (int i = 0; i < count; i++) {
        if (!slots[i].key)
            continue;
        char twin[300], *text, *at;
        /* a twin of equal length, renamed in the text */
        (void)snprintf(twin, sizeof twin, "%s", slots[i].key);
        twin[0] = '@';
        assert_int_equal(json_object_set(slots[i].parent, twin, value_at(&slots[i])), 0);
        text = json_dumps(root, JSON_COMPACT);
        at = strchr(text, '@');
        assert_non_null(at);
        *at = slots[i].key[0];
        must_refuse(text, strlen(text), slots[i].key);
        assert_non_null(strstr(featinv_last_error(), "duplicate"));
        free(text);
        assert_int_equal(json_object_del(slots[i].parent, twin), 0);
    }
    json_decref(root);
}

static void nesting_and_size(void **state) {
    (void)state;
    enum { DEEP = 200000 };
    char *text = malloc(2 * DEEP + good_size + 100);
    for (int object = 0; object < 2; object++) {
        size_t size = 0;
        for (int i = 0; i < DEEP / 5; i++)
            size += (size_t)sprintf(text + size, object ? "{\"a\":" : "[");
        must_refuse(text, size, "nested");
    }
    /* inside a section that may hold anything, closed as it should be */
    char *at = strstr(good, "\"provenance\": {}");
    assert_non_null(at);
    for (int depth = 10; depth <= DEEP; depth *= 20) {
        size_t size = (size_t)(at - good);
        memcpy(text, good, size);
        size += (size_t)sprintf(text + size, "\"provenance\": {\"a\": ");
        memset(text + size, '[', (size_t)depth);
        memset(text + size + depth, ']', (size_t)depth);
        size += 2 * (size_t)depth;
        size += (size_t)sprintf(text + size, "}}");
        featinv_status status = open_with(text, size);
        assert_int_equal(status, depth > 2048 ? FEATINV_ERROR_BUNDLE : FEATINV_OK);
    }
    free(text);

    static const char *const whole[] = {"",      " ",        "null", "true", "1",
                                        "\"a\"", "[]",       "{}",   "{]",   "\xef\xbb\xbf{}",
                                        "{}{}",  "{\"\":1}", "[{}]"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        must_refuse(whole[i], strlen(whole[i]), whole[i]);

    enum { LARGE = (16 << 20) + 1 };
    text = malloc(LARGE);
    memset(text, ' ', LARGE);
    memcpy(text, good, good_size);
    CHECK_OK(open_with(text, LARGE - 1));
    (void)unlink(in_bundle("manifest.json"));
    put("manifest.json", text, LARGE);
    featinv_model *model = NULL;
    CHECK_FAILS(featinv_model_open(&model, bundle_dir, NULL), FEATINV_ERROR_BUNDLE, "16777217");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_truncation_refuses),    cmocka_unit_test(damaged_bytes),
        cmocka_unit_test(every_number_replaced),       cmocka_unit_test(every_string_spoilt),
        cmocka_unit_test(every_value_of_another_type), cmocka_unit_test(every_missing_key_refuses),
        cmocka_unit_test(every_key_twice_refuses),     cmocka_unit_test(nesting_and_size),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
