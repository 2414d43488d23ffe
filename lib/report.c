#include "report.h"

#include "error.h"
#include "file.h"
#include "journal.h"
#include "options.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_SHARDS = 100000 };

struct featinv_report {
    char *directory, *title, *journal_path;
    FILE *journal;
    json_t *settings, *about; /* about: the summary's fixed part */
    json_t *batches;          /* committed: array of arrays of items */
    json_t *pending;          /* items of the batch that is under way */
    json_t *held;             /* "sample input" → true: what a resumed journal held */
    int32_t shard, shards;
};

/* ---------------------------------------------------------------- values --------------------- */

static size_t utf8_length(const unsigned char *s) {
    static const struct {
        unsigned char mask, lead;
        unsigned least;
    } kinds[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t n = 0; n < 4; n++) {
        if ((s[0] & kinds[n].mask) != kinds[n].lead)
            continue;
        unsigned code = s[0] & (unsigned char)~kinds[n].mask;
        for (size_t i = 1; i <= n; i++) {
            if ((s[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (s[i] & 0x3fu);
        }
        bool good = code >= kinds[n].least && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
        return good ? n + 1 : 0;
    }
    return 0;
}

/* A JSON string of any bytes (file names need not be UTF-8): what is not becomes U+FFFD. */
static json_t *text_value(const char *text) {
    if (!text)
        return json_null();
    size_t length = strlen(text), used = 0;
    char *clean = malloc(3 * length + 1);
    if (!clean)
        return NULL;
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t n = utf8_length(s);
        memcpy(clean + used, n ? (const char *)s : "\xef\xbf\xbd", n ? n : 3);
        used += n ? n : 3;
        s += n ? n : 1;
    }
    json_t *value = json_stringn(clean, used);
    free(clean);
    return value;
}

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *class_index(int64_t value) {
    return value < 0 ? json_null() : json_integer((json_int_t)value);
}

static json_t *truth(int32_t value) {
    return value < 0 ? json_null() : json_boolean(value);
}

/* JSON integers end at 2^63 here; beyond it a seed is written as text. */
static json_t *seed_value(uint64_t seed) {
    char text[24];
    if (seed <= INT64_MAX)
        return json_integer((json_int_t)seed);
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    return json_string(text);
}

/* Steals value; NULL value (out of memory) is a failure. */
static bool set(json_t *object, const char *key, json_t *value) {
    return json_object_set_new(object, key, value) == 0;
}

/* ---------------------------------------------------------------- creation ------------------- */

featinv_status featinv_report_options_init(featinv_report_options *options, size_t size) {
    featinv_report_options all = {.struct_size = sizeof all, .scale = NAN, .samples = 1};
    return fi_options_init(options, size, &all, sizeof all);
}

static char *join(const char *directory, const char *name) {
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = malloc(size);
    if (path)
        (void)snprintf(path, size, "%s/%s", directory, name);
    return path;
}

static char *journal_path(const char *directory, int32_t shard, int32_t shards) {
    char name[64] = "journal.jsonl";
    if (shards > 1)
        (void)snprintf(name, sizeof name, "journal-%d-of-%d.jsonl", shard, shards);
    return join(directory, name);
}

static bool fill(featinv_report *r, const char *directory, const featinv_report_options *o) {
    r->directory = strdup(directory);
    r->title = strdup(o->title ? o->title : "FeatInv");
    r->shard = o->shard;
    r->shards = o->shards > 1 ? o->shards : 1;
    r->journal_path = journal_path(directory, o->shard, r->shards);
    r->about = json_object();
    r->batches = json_array();
    r->pending = json_array();
    r->held = json_object();
    return r->directory && r->title && r->journal_path && r->about && r->batches && r->pending &&
           r->held && set(r->about, "steps", o->steps > 0 ? json_integer(o->steps) : json_null()) &&
           set(r->about, "scale", number(o->scale)) &&
           set(r->about, "samples", json_integer(o->samples)) &&
           set(r->about, "device", text_value(o->device)) &&
           set(r->about, "dtype", text_value(o->dtype)) &&
           set(r->about, "bundle", text_value(o->bundle_name)) &&
           set(r->about, "bundle_sha256", text_value(o->bundle_sha256)) &&
           set(r->about, "version", text_value(featinv_version()));
}

static featinv_status parse_settings(json_t **out, const char *text) {
    json_error_t error;
    *out = text ? json_loads(text, JSON_REJECT_DUPLICATES, &error) : json_object();
    if (!*out && !text)
        return fi_fail_memory(sizeof(json_t));
    if (!*out)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the settings are no JSON: %s", error.text);
    if (!json_is_object(*out))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the settings are no JSON object");
    return FEATINV_OK;
}

static json_t *held_key(const char *input, json_int_t sample) {
    json_t *text = text_value(input);
    json_t *key = text ? json_sprintf("%lld %s", (long long)sample, json_string_value(text)) : NULL;
    json_decref(text);
    return key;
}

static bool file_is_there(const char *directory, const json_t *name) {
    if (!json_is_string(name))
        return true;
    struct stat info;
    char *path = join(directory, json_string_value(name));
    bool there = path && stat(path, &info) == 0 && S_ISREG(info.st_mode);
    free(path);
    return there;
}

static bool batch_is_whole(const char *directory, const json_t *batch) {
    size_t i;
    json_t *item;
    json_array_foreach(batch, i, item) {
        if (!file_is_there(directory, json_object_get(item, "image")) ||
            !file_is_there(directory, json_object_get(item, "reference")) ||
            !file_is_there(directory, json_object_get(item, "spread")))
            return false;
    }
    return true;
}

static bool hold(featinv_report *r, const json_t *batch) {
    size_t i;
    json_t *item;
    json_array_foreach(batch, i, item) {
        json_t *key = held_key(json_string_value(json_object_get(item, "input")),
                               json_integer_value(json_object_get(item, "sample")));
        bool good = key && set(r->held, json_string_value(key), json_true());
        json_decref(key);
        if (!good)
            return false;
    }
    return true;
}

/* Takes over what the journal holds. A picture that has gone since makes its batch, and those
 * behind it, undone: the journal then starts anew with the batches before it. */
static featinv_status resume(featinv_report *r, size_t *keep) {
    fi_journal old;
    featinv_status status = fi_journal_read(&old, r->journal_path, r->settings, true);
    if (status || !old.batches)
        return status;
    *keep = old.bytes;
    size_t i;
    json_t *batch;
    json_array_foreach(old.batches, i, batch) {
        if (!batch_is_whole(r->directory, batch)) {
            *keep = 0;
            break;
        }
        if (!hold(r, batch) || json_array_append(r->batches, batch)) {
            status = fi_fail_memory(sizeof(json_t));
            break;
        }
    }
    fi_journal_free(&old);
    return status;
}

static featinv_status start_journal(featinv_report *r, bool resumed) {
    size_t keep = 0, i;
    json_t *batch;
    featinv_status status = resumed ? resume(r, &keep) : FEATINV_OK;
    if (!status)
        status = fi_journal_open(&r->journal, r->journal_path, r->settings, keep);
    if (status || keep)
        return status;
    json_array_foreach(r->batches, i, batch) {
        if (!status)
            status = fi_journal_commit(r->journal, r->journal_path, batch, i);
    }
    return status;
}

static featinv_status check(featinv_report **out, const char *directory,
                            const featinv_report_options *o) {
    struct stat info;
    if (!out || !directory)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the place for the report or its folder is NULL");
    if (o->shards < 0 || o->shards > MOST_SHARDS || o->shard < 0 ||
        o->shard >= (o->shards > 1 ? o->shards : 1))
        return fi_fail(FEATINV_ERROR_ARGUMENT, "shard %d of %d: it counts from 0", o->shard,
                       o->shards);
    if (stat(directory, &info) != 0 || !S_ISDIR(info.st_mode))
        return fi_fail(FEATINV_ERROR_WRITE, "%s: is not a folder", directory);
    return FEATINV_OK;
}

featinv_status featinv_report_create(featinv_report **out, const char *directory,
                                     const featinv_report_options *options) {
    featinv_report_options o = {.struct_size = sizeof o, .scale = NAN, .samples = 1};
    featinv_status status = fi_options_read(&o, sizeof o, options);
    if (!status)
        status = check(out, directory, &o);
    if (status)
        return status;
    *out = NULL;
    featinv_report *r = calloc(1, sizeof *r);
    if (!r)
        return fi_fail_memory(sizeof *r);
    status = parse_settings(&r->settings, o.settings);
    if (!status && !fill(r, directory, &o))
        status = fi_fail_memory(sizeof *r);
    if (!status)
        status = start_journal(r, o.resume != 0);
    if (status) {
        featinv_report_destroy(r);
        return status;
    }
    *out = r;
    return FEATINV_OK;
}

void featinv_report_destroy(featinv_report *r) {
    if (!r)
        return;
    if (r->journal) {
        (void)fclose(r->journal);
        if (json_array_size(r->batches) == 0) /* nothing was done: nothing to resume */
            (void)unlink(r->journal_path);
    }
    json_decref(r->settings);
    json_decref(r->about);
    json_decref(r->batches);
    json_decref(r->pending);
    json_decref(r->held);
    free(r->directory);
    free(r->title);
    free(r->journal_path);
    free(r);
}

/* ---------------------------------------------------------------- items ---------------------- */

int32_t featinv_report_has(const featinv_report *report, const char *input, int32_t sample) {
    json_t *key = report && input ? held_key(input, sample) : NULL;
    bool found = key && json_object_get(report->held, json_string_value(key));
    json_decref(key);
    return found;
}

static const featinv_score unknown = {.cosine_median = NAN,
                                      .cosine_mean = NAN,
                                      .cosine_centred = NAN,
                                      .top1_original = -1,
                                      .top1_sample = -1,
                                      .match_top1 = -1,
                                      .match_top5 = -1,
                                      .seconds = NAN};

static json_t *item_value(const featinv_report_item *i) {
    const featinv_score *s = i->score ? i->score : &unknown;
    json_t *item = json_object();
    if (item && set(item, "input", text_value(i->input)) &&
        set(item, "sample", json_integer(i->sample)) && set(item, "seed", seed_value(i->seed)) &&
        set(item, "image", text_value(i->image)) &&
        set(item, "cosine_median", number(s->cosine_median)) &&
        set(item, "cosine_mean", number(s->cosine_mean)) &&
        set(item, "cosine_centred", number(s->cosine_centred)) &&
        set(item, "top1_original", class_index(s->top1_original)) &&
        set(item, "top1_sample", class_index(s->top1_sample)) &&
        set(item, "match_top1", truth(s->match_top1)) &&
        set(item, "match_top5", truth(s->match_top5)) && set(item, "seconds", number(s->seconds)) &&
        (!i->reference || set(item, "reference", text_value(i->reference))) &&
        (!i->spread || set(item, "spread", text_value(i->spread))) &&
        (!i->class_original || set(item, "class_original", text_value(i->class_original))) &&
        (!i->class_sample || set(item, "class_sample", text_value(i->class_sample))) &&
        (!i->error || set(item, "error", text_value(i->error))))
        return item;
    json_decref(item);
    return NULL;
}

featinv_status featinv_report_add(featinv_report *report, const featinv_report_item *item) {
    featinv_report_item i = {.struct_size = sizeof i};
    if (!report || !item)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the report or its item is NULL");
    featinv_status status = fi_options_read(&i, sizeof i, item);
    if (status)
        return status;
    if (!i.input || i.sample < 0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the item has no input, or sample %d", i.sample);
    if (json_array_append_new(report->pending, item_value(&i)))
        return fi_fail_memory(sizeof i);
    return FEATINV_OK;
}

featinv_status featinv_report_commit(featinv_report *report) {
    if (!report)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the report is NULL");
    featinv_status status = fi_journal_commit(report->journal, report->journal_path,
                                              report->pending, json_array_size(report->batches));
    if (status)
        return status;
    json_t *next = json_array();
    if (!next || json_array_append(report->batches, report->pending)) {
        json_decref(next);
        return fi_fail_memory(sizeof(json_t));
    }
    json_decref(report->pending);
    report->pending = next;
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- order ---------------------- */

typedef struct entry {
    json_t *item;
    json_int_t input, sample;
    size_t arrival;
} entry;

static int compare_entries(const void *left, const void *right) {
    const entry *a = left, *b = right;
    if (a->input != b->input)
        return a->input < b->input ? -1 : 1;
    if (a->sample != b->sample)
        return a->sample < b->sample ? -1 : 1;
    return a->arrival < b->arrival ? -1 : a->arrival > b->arrival;
}

/* Number of the item's input in the order of first addition. One input given twice is told apart
 * by its reference picture. */
static bool number_input(json_int_t *out, json_t *seen, const json_t *item) {
    const char *reference = json_string_value(json_object_get(item, "reference"));
    json_t *key = json_sprintf("%s\n%s", json_string_value(json_object_get(item, "input")),
                               reference ? reference : "");
    const char *text = json_string_value(key);
    json_t *found = text ? json_object_get(seen, text) : NULL;
    *out = found ? json_integer_value(found) : (json_int_t)json_object_size(seen);
    bool good = text && (found || set(seen, text, json_integer(*out)));
    json_decref(key);
    return good;
}

static json_t *sorted(const json_t *items) {
    size_t count = json_array_size(items), i;
    entry *entries = calloc(count + 1, sizeof *entries);
    json_t *seen = json_object(), *out = json_array(), *item;
    bool good = entries && seen && out;
    json_array_foreach(items, i, item) {
        if (!good)
            break;
        entries[i] = (entry){item, 0, json_integer_value(json_object_get(item, "sample")), i};
        good = number_input(&entries[i].input, seen, item);
    }
    if (good)
        qsort(entries, count, sizeof *entries, compare_entries);
    for (i = 0; good && i < count; i++)
        good = json_array_append(out, entries[i].item) == 0;
    free(entries);
    json_decref(seen);
    if (good)
        return out;
    json_decref(out);
    return NULL;
}

/* What the other shards have committed: batch lists by shard, this one's own included. */
static featinv_status read_shards(const featinv_report *r, json_t *lists, double *seconds) {
    for (int32_t s = 0; s < r->shards; s++) {
        json_t *list = s == r->shard ? json_copy(r->batches) : NULL;
        if (s == r->shard && list && json_array_size(r->pending))
            (void)json_array_append(list, r->pending);
        if (s != r->shard) {
            fi_journal other;
            char *path = journal_path(r->directory, s, r->shards);
            featinv_status status = path ? fi_journal_read(&other, path, r->settings, false)
                                         : fi_fail_memory(sizeof(json_t));
            free(path);
            if (status)
                return status;
            *seconds = fmax(*seconds, other.seconds);
            list = other.batches ? json_incref(other.batches) : json_array();
            fi_journal_free(&other);
        }
        if (json_array_append_new(lists, list))
            return fi_fail_memory(sizeof(json_t));
    }
    return FEATINV_OK;
}

/* All items: batch b of the whole is batch b div N of shard b mod N. */
static featinv_status gather(json_t **out, const featinv_report *r, double *seconds) {
    json_t *lists = json_array(), *items = json_array(), *list;
    featinv_status status =
        lists && items ? read_shards(r, lists, seconds) : fi_fail_memory(sizeof(json_t));
    bool more = !status;
    for (size_t b = 0; more; b++) {
        size_t s;
        more = false;
        json_array_foreach(lists, s, list) {
            const json_t *batch = json_array_get(list, b);
            more |= batch != NULL;
            if (batch && json_array_extend(items, (json_t *)(uintptr_t)batch))
                status = fi_fail_memory(sizeof(json_t));
        }
    }
    *out = status ? NULL : sorted(items);
    if (!status && !*out)
        status = fi_fail_memory(sizeof(json_t));
    json_decref(lists);
    json_decref(items);
    return status;
}

/* ---------------------------------------------------------------- summary -------------------- */

/* Mean over the items that know the value; a truth value counts 0 or 1. */
static json_t *mean_of(const json_t *items, const char *key) {
    double sum = 0.0;
    size_t count = 0, i;
    json_t *item;
    json_array_foreach(items, i, item) {
        const json_t *value = json_object_get(item, key);
        if (!json_is_number(value) && !json_is_boolean(value))
            continue;
        sum += json_is_boolean(value) ? (double)json_is_true(value) : json_number_value(value);
        count++;
    }
    return count ? number(sum / (double)count) : json_null();
}

static size_t count_strings(const json_t *items, const char *key) {
    size_t count = 0, i;
    json_t *item;
    json_array_foreach(items, i, item) count += json_is_string(json_object_get(item, key));
    return count;
}

static json_t *summary_value(const featinv_report *r, const json_t *items, double seconds) {
    json_t *summary = json_object();
    size_t images = count_strings(items, "image");
    if (summary && set(summary, "cosine_median", mean_of(items, "cosine_median")) &&
        set(summary, "cosine_centred", mean_of(items, "cosine_centred")) &&
        set(summary, "match_top1", mean_of(items, "match_top1")) &&
        set(summary, "match_top5", mean_of(items, "match_top5")) &&
        set(summary, "images", json_integer((json_int_t)images)) &&
        set(summary, "errors", json_integer((json_int_t)count_strings(items, "error"))) &&
        set(summary, "seconds", number(seconds)) &&
        set(summary, "seconds_per_sample", mean_of(items, "seconds")) &&
        json_object_update(summary, r->about) == 0)
        return summary;
    json_decref(summary);
    return NULL;
}

/* ---------------------------------------------------------------- files ---------------------- */

static featinv_status write_results(const char *path, json_t *items, json_t *summary) {
    json_t *root = json_pack("{s:O, s:O}", "items", items, "summary", summary);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) : NULL;
    featinv_status status;
    if (text) {
        size_t length = strlen(text);
        text[length] = '\n'; /* in place of the end: a text file ends in a newline */
        status = fi_file_write(path, text, length + 1);
    } else {
        status = fi_fail_memory(sizeof(json_t));
    }
    free(text);
    json_decref(root);
    return status;
}

static featinv_status write_files(const featinv_report *r, json_t *items, json_t *summary) {
    char *results = join(r->directory, "results.json"), *html = join(r->directory, "report.html");
    fi_page page = {r->directory, r->title, items, summary};
    featinv_status status = results && html ? FEATINV_OK : fi_fail_memory(sizeof page);
    if (!status)
        status = write_results(results, items, summary);
    if (!status)
        status = fi_page_write(html, &page);
    free(results);
    free(html);
    return status;
}

featinv_status featinv_report_write(featinv_report *report, double seconds, int32_t complete) {
    if (!report)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the report is NULL");
    json_t *items = NULL, *summary = NULL;
    featinv_status status = FEATINV_OK;
    /* before the others are read: of two shards that end together at least one sees both */
    if (complete && report->shards > 1)
        status = fi_journal_done(report->journal, report->journal_path, seconds);
    if (!status)
        status = gather(&items, report, &seconds);
    if (!status) {
        summary = summary_value(report, items, seconds);
        status = summary ? write_files(report, items, summary) : fi_fail_memory(sizeof(json_t));
    }
    if (!status && complete && report->shards == 1)
        (void)unlink(report->journal_path);
    json_decref(items);
    json_decref(summary);
    return status;
}
