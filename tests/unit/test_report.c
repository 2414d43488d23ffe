/* The journal, results.json and report.html of a job. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "featinv.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- a folder a test ------------ */

static char folder[256];

static const char *in_folder(const char *name) {
    static char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    (void)snprintf(folder, sizeof folder, "%s/featinv-report-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[300];
    (void)snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static void put_file(const char *name, const char *text) {
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static char *get_file(const char *name) {
    FILE *f = fopen(in_folder(name), "r");
    if (!f)
        fail_msg("%s is not there", name);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long size = ftell(f);
    rewind(f);
    char *text = calloc((size_t)size + 1, 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, f), size);
    (void)fclose(f);
    return text;
}

static bool is_there(const char *name) {
    return access(in_folder(name), F_OK) == 0;
}

/* ---------------------------------------------------------------- a small job ---------------- */

enum { INPUTS = 7, BATCH = 2 };

static const featinv_score good_score = {.cosine_median = 0.97,
                                         .cosine_mean = 0.96,
                                         .cosine_centred = NAN,
                                         .top1_original = 3,
                                         .top1_sample = 4,
                                         .match_top1 = 0,
                                         .match_top5 = 1,
                                         .seconds = 0.5};

static featinv_report_options options_of(const char *settings) {
    featinv_report_options o;
    assert_int_equal(featinv_report_options_init(&o, sizeof o), FEATINV_OK);
    o.settings = settings;
    o.scale = 1.75;
    o.steps = 50;
    o.device = "cpu";
    o.dtype = "fp32";
    o.bundle_name = "tiny";
    o.bundle_sha256 = "abc";
    return o;
}

static featinv_report *create(const featinv_report_options *o) {
    featinv_report *report = NULL;
    if (featinv_report_create(&report, folder, o))
        fail_msg("%s", featinv_last_error());
    return report;
}

static void add(featinv_report *report, int input, int sample) {
    char name[32], image[32];
    (void)snprintf(name, sizeof name, "in-%d.png", input);
    (void)snprintf(image, sizeof image, "%d-%d.png", input, sample);
    put_file(image, image);
    featinv_report_item item = {.struct_size = sizeof item,
                                .sample = sample,
                                .input = name,
                                .seed = 100,
                                .image = image,
                                .score = &good_score};
    assert_int_equal(featinv_report_add(report, &item), FEATINV_OK);
}

/* Batches first to last (exclusive) of the part that belongs to the shard. */
static void run(featinv_report *report, int first, int last, int shard, int shards) {
    for (int b = first; b < last; b++) {
        if (b % shards != shard)
            continue;
        for (int i = b * BATCH; i < (b + 1) * BATCH && i < INPUTS; i++)
            for (int k = 0; k < 2; k++)
                add(report, i, k);
        assert_int_equal(featinv_report_commit(report), FEATINV_OK);
    }
}

static json_t *items_of(const char *text, json_t **root) {
    *root = json_loads(text, 0, NULL);
    assert_non_null(*root);
    return json_object_get(*root, "items");
}

/* ---------------------------------------------------------------- tests ---------------------- */

static void results_hold_every_field(void **state) {
    (void)state;
    featinv_report_options o = options_of(NULL);
    featinv_report *report = create(&o);
    featinv_report_item failed = {.struct_size = sizeof failed,
                                  .input = "b\xff.png",
                                  .seed = UINT64_MAX,
                                  .error = "b: is \"damaged\""};
    add(report, 0, 1);
    assert_int_equal(featinv_report_add(report, &failed), FEATINV_OK);
    add(report, 0, 0);
    assert_int_equal(featinv_report_commit(report), FEATINV_OK);
    assert_int_equal(featinv_report_write(report, 12.5, 1), FEATINV_OK);
    featinv_report_destroy(report);

    char *text = get_file("results.json");
    json_t *root, *items = items_of(text, &root);
    static const char *const expected[] = {
        "{\"input\": \"in-0.png\", \"sample\": 0, \"seed\": 100, \"image\": \"0-0.png\", "
        "\"cosine_median\": 0.97, \"cosine_mean\": 0.96, \"cosine_centred\": null, "
        "\"top1_original\": 3, \"top1_sample\": 4, \"match_top1\": false, \"match_top5\": true, "
        "\"seconds\": 0.5}",
        NULL,
        "{\"input\": \"b\xef\xbf\xbd.png\", \"sample\": 0, \"seed\": \"18446744073709551615\", "
        "\"image\": null, \"cosine_median\": null, \"cosine_mean\": null, "
        "\"cosine_centred\": null, \"top1_original\": null, \"top1_sample\": null, "
        "\"match_top1\": null, \"match_top5\": null, \"seconds\": null, "
        "\"error\": \"b: is \\\"damaged\\\"\"}"};
    assert_int_equal(json_array_size(items), 3);
    for (size_t i = 0; i < 3; i++) {
        json_t *want = expected[i] ? json_loads(expected[i], 0, NULL) : NULL;
        if (want && !json_equal(want, json_array_get(items, i)))
            fail_msg("item %zu is not %s in %s", i, expected[i], text);
        json_decref(want);
    }
    assert_int_equal(json_integer_value(json_object_get(json_array_get(items, 1), "sample")), 1);
    json_t *want =
        json_pack("{s:f, s:n, s:f, s:f, s:i, s:i, s:f, s:f, s:i, s:f, s:i, s:s, s:s, "
                  "s:s, s:s, s:s}",
                  "cosine_median", 0.97, "cosine_centred", "match_top1", 0.0, "match_top5", 1.0,
                  "images", 2, "errors", 1, "seconds", 12.5, "seconds_per_sample", 0.5, "steps", 50,
                  "scale", 1.75, "samples", 1, "device", "cpu", "dtype", "fp32", "bundle", "tiny",
                  "bundle_sha256", "abc", "version", featinv_version());
    assert_non_null(want);
    if (!json_equal(want, json_object_get(root, "summary")))
        fail_msg("the summary differs: %s", text);
    json_decref(want);
    json_decref(root);
    free(text);
    assert_false(is_there("journal.jsonl"));
}

static void unknown_values_are_null(void **state) {
    (void)state;
    featinv_report *report = create(NULL);
    featinv_report_item item = {.struct_size = sizeof item, .input = "a.npy"};
    assert_int_equal(featinv_report_add(report, &item), FEATINV_OK);
    assert_int_equal(featinv_report_write(report, NAN, 1), FEATINV_OK);
    featinv_report_destroy(report);
    char *text = get_file("results.json");
    json_t *root, *summary;
    (void)items_of(text, &root);
    summary = json_object_get(root, "summary");
    static const char *const keys[] = {"cosine_median", "cosine_centred", "match_top1",
                                       "match_top5",    "seconds",        "seconds_per_sample",
                                       "steps",         "scale",          "device",
                                       "dtype",         "bundle_sha256"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_is_null(json_object_get(summary, keys[i])))
            fail_msg("%s is not null in %s", keys[i], text);
    json_decref(root);
    free(text);
}

static void the_page_inlines_pictures_and_escapes_text(void **state) {
    (void)state;
    featinv_report_options o = options_of(NULL);
    o.title = "<script>alert(1)</script>";
    featinv_report *report = create(&o);
    put_file("p.png", "\x89PNG1");
    featinv_report_item item = {.struct_size = sizeof item,
                                .input = "dir/<img src=x onerror='y'>&\".png",
                                .image = "p.png",
                                .reference = "gone.png",
                                .score = &good_score,
                                .class_original = "a<b",
                                .class_sample = "c&d"};
    featinv_report_item failed = {
        .struct_size = sizeof failed, .input = "<i>.png", .error = "<b>no</b>"};
    assert_int_equal(featinv_report_add(report, &item), FEATINV_OK);
    assert_int_equal(featinv_report_add(report, &failed), FEATINV_OK);
    assert_int_equal(featinv_report_write(report, 1, 1), FEATINV_OK);
    featinv_report_destroy(report);
    char *page = get_file("report.html");
    static const char *const there[] = {"data:image/png;base64,iVBORzE=\"",
                                        "cosine 0.970",
                                        "picture missing",
                                        "&lt;script&gt;alert(1)",
                                        "&lt;img src=x onerror=&#39;y&#39;&gt;&amp;&quot;.png",
                                        "a&lt;b",
                                        "c&amp;d",
                                        "&lt;i&gt;.png</b>: &lt;b&gt;no"};
    static const char *const absent[] = {"<script", "<img src=x", "a<b", "<i>.png", "http"};
    for (size_t i = 0; i < sizeof there / sizeof *there; i++)
        if (!strstr(page, there[i]))
            fail_msg("%s is not in the page", there[i]);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        if (strstr(page, absent[i]))
            fail_msg("%s is in the page", absent[i]);
    free(page);
}

/* Base64 of 0 to 5 bytes (RFC 4648, section 10). */
static void base64_is_padded(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"f", "Zg=="},         {"fo", "Zm8="},
                                           {"foo", "Zm9v"},       {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        featinv_report *report = create(NULL);
        put_file("p.png", cases[i][0]);
        featinv_report_item item = {.struct_size = sizeof item, .input = "a", .image = "p.png"};
        assert_int_equal(featinv_report_add(report, &item), FEATINV_OK);
        assert_int_equal(featinv_report_write(report, 1, 1), FEATINV_OK);
        featinv_report_destroy(report);
        char *page = get_file("report.html"), want[64];
        (void)snprintf(want, sizeof want, ";base64,%s\"", cases[i][1]);
        if (!strstr(page, want))
            fail_msg("%s is not encoded as %s", cases[i][0], cases[i][1]);
        free(page);
    }
}

/* Whatever byte a crash ends the journal at, the resumed job gives the same results. */
static void a_torn_journal_is_resumed_at_its_last_batch(void **state) {
    (void)state;
    featinv_report_options o = options_of("{\"steps\": 50}");
    featinv_report *report = create(&o);
    run(report, 0, 4, 0, 1);
    assert_int_equal(featinv_report_write(report, 3, 1), FEATINV_OK);
    featinv_report_destroy(report);
    char *whole = get_file("results.json");

    report = create(&o);
    run(report, 0, 2, 0, 1);
    add(report, 4, 0); /* the third batch is under way */
    featinv_report_destroy(report);
    char *journal = get_file("journal.jsonl");
    size_t size = strlen(journal), lengths[3] = {0}, commits = 0;
    for (const char *c = journal; (c = strstr(c, "{\"commit\"")); c++)
        lengths[++commits] = (size_t)(strchr(c, '\n') - journal) + 1;
    assert_int_equal(commits, 2);

    o.resume = 1;
    for (size_t cut = 0; cut <= size; cut += cut + 100 < size ? 151 : 17) {
        put_file("journal.jsonl", journal);
        assert_int_equal(truncate(in_folder("journal.jsonl"), (off_t)cut), 0);
        int held = (cut >= lengths[1]) + (cut >= lengths[2]);
        report = create(&o);
        for (int i = 0; i < INPUTS; i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "in-%d.png", i);
            if (featinv_report_has(report, name, 1) != (i < held * BATCH) ||
                featinv_report_has(report, name, 2))
                fail_msg("cut at %zu: %s is %sheld", cut, name, i < held * BATCH ? "not " : "");
        }
        run(report, held, 4, 0, 1);
        assert_int_equal(featinv_report_write(report, 3, 1), FEATINV_OK);
        featinv_report_destroy(report);
        char *resumed = get_file("results.json");
        assert_string_equal(resumed, whole);
        free(resumed);
        assert_false(is_there("journal.jsonl"));
    }
    free(journal);
    free(whole);
}

static void a_lost_picture_makes_its_batch_undone(void **state) {
    (void)state;
    featinv_report_options o = options_of(NULL);
    featinv_report *report = create(&o);
    run(report, 0, 3, 0, 1);
    featinv_report_destroy(report);
    assert_int_equal(unlink(in_folder("2-1.png")), 0);
    o.resume = 1;
    for (int again = 0; again < 2; again++) { /* the second time from the shortened journal */
        report = create(&o);
        assert_true(featinv_report_has(report, "in-1.png", 1));
        assert_false(featinv_report_has(report, "in-2.png", 0));
        assert_false(featinv_report_has(report, "in-4.png", 0));
        featinv_report_destroy(report);
    }
}

static void a_resume_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *name, *journal, *settings;
        featinv_status status;
        const char *text;
    } cases[] = {
        {"other value", "{\"journal\": 1, \"settings\": {\"steps\": 50}}\n", "{\"steps\": 20}",
         FEATINV_ERROR_ARGUMENT, "steps was 50, now 20"},
        {"new key", "{\"journal\": 1, \"settings\": {}}\n", "{\"eta\": 1}", FEATINV_ERROR_ARGUMENT,
         "eta was absent, now 1"},
        {"other file", "{\"a\": 1}\n", "{}", FEATINV_ERROR_FORMAT, "is not a journal"},
        {"later version", "{\"journal\": 2, \"settings\": {}}\n", "{}", FEATINV_ERROR_FORMAT,
         "version 2"},
        {"settings no JSON", NULL, "{", FEATINV_ERROR_ARGUMENT, "no JSON"},
        {"settings no object", NULL, "[]", FEATINV_ERROR_ARGUMENT, "no JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].journal)
            put_file("journal.jsonl", cases[i].journal);
        featinv_report_options o = options_of(cases[i].settings);
        featinv_report *report = NULL;
        o.resume = 1;
        featinv_status status = featinv_report_create(&report, folder, &o);
        if (status != cases[i].status || report || !strstr(featinv_last_error(), cases[i].text))
            fail_msg("%s: %s, %s", cases[i].name, featinv_status_name(status),
                     featinv_last_error());
        if (cases[i].journal) { /* left as it was */
            char *journal = get_file("journal.jsonl");
            assert_string_equal(journal, cases[i].journal);
            free(journal);
        }
    }
    put_file("journal.jsonl", cases[0].journal); /* without resume an old one is replaced */
    featinv_report_options o = options_of("{\"steps\": 20}");
    featinv_report_destroy(create(&o));
    assert_false(is_there("journal.jsonl"));
}

static void shards_together_are_the_whole(void **state) {
    (void)state;
    featinv_report_options o = options_of("{\"steps\": 50}");
    featinv_report *report = create(&o);
    run(report, 0, 4, 0, 1);
    assert_int_equal(featinv_report_write(report, 3, 1), FEATINV_OK);
    featinv_report_destroy(report);
    char *whole = get_file("results.json");

    /* a journal of another job in the same folder is not mixed in */
    featinv_report_options foreign = options_of("{\"steps\": 20}");
    foreign.shards = 3;
    foreign.shard = 1;
    report = create(&foreign);
    run(report, 0, 4, 1, 3);
    featinv_report_destroy(report);

    static const int order[] = {2, 0, 1};
    o.shards = 3;
    for (int i = 0; i < 3; i++) {
        o.shard = order[i];
        report = create(&o);
        run(report, 0, 4, o.shard, 3);
        assert_int_equal(featinv_report_write(report, i == 0 ? 3 : 2, 1), FEATINV_OK);
        featinv_report_destroy(report);
        char *now = get_file("results.json");
        assert_int_equal(strcmp(now, whole) == 0, i == 2);
        free(now);
    }
    free(whole);
}

static void a_report_is_refused(void **state) {
    (void)state;
    put_file("file", "");
    const char *file = in_folder("file");
    featinv_report *report = NULL;
    assert_int_equal(featinv_report_create(&report, file, NULL), FEATINV_ERROR_WRITE);
    assert_int_equal(featinv_report_create(&report, "/nowhere/at/all", NULL), FEATINV_ERROR_WRITE);
    assert_int_equal(featinv_report_create(&report, NULL, NULL), FEATINV_ERROR_ARGUMENT);
    assert_int_equal(featinv_report_create(NULL, folder, NULL), FEATINV_ERROR_ARGUMENT);
    static const int32_t shards[][2] = {{1, 0}, {1, 1}, {3, 3}, {-1, 3}, {0, -1}, {0, 1 << 30}};
    for (size_t i = 0; i < sizeof shards / sizeof *shards; i++) {
        featinv_report_options o = options_of(NULL);
        o.shard = shards[i][0];
        o.shards = shards[i][1];
        if (featinv_report_create(&report, folder, &o) != FEATINV_ERROR_ARGUMENT)
            fail_msg("shard %d of %d was taken", shards[i][0], shards[i][1]);
    }
    /* a folder in the place of a result */
    report = create(NULL);
    assert_int_equal(mkdir(in_folder("results.json"), 0777), 0);
    featinv_report_item item = {.struct_size = sizeof item, .input = "a"}, none = item;
    none.input = NULL;
    assert_int_equal(featinv_report_add(report, &none), FEATINV_ERROR_ARGUMENT);
    assert_int_equal(featinv_report_add(report, &item), FEATINV_OK);
    assert_int_equal(featinv_report_write(report, 1, 1), FEATINV_ERROR_WRITE);
    featinv_report_destroy(report);
    assert_false(is_there("report.html"));
    featinv_report_destroy(NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(results_hold_every_field),
        TEST(unknown_values_are_null),
        TEST(the_page_inlines_pictures_and_escapes_text),
        TEST(base64_is_padded),
        TEST(a_torn_journal_is_resumed_at_its_last_batch),
        TEST(a_lost_picture_makes_its_batch_undone),
        TEST(a_resume_is_refused),
        TEST(shards_together_are_the_whole),
        TEST(a_report_is_refused),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
