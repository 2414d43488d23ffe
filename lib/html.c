/* report.html: one page that needs nothing but itself. Pictures are the very files that were
 * written, inlined; the cosine stands under each, as in the paper's figures. */
#include "report.h"

#include "error.h"
#include "file.h"
#include "markup.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PICTURE ((size_t)256 << 20)

/* ---------------------------------------------------------------- text ----------------------- */

static const char *string(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* NaN where it is null. */
static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* ---------------------------------------------------------------- pictures ------------------- */

/* The picture inlined; a note where its file has gone. */
static void put_picture(FILE *stream, const char *directory, const char *name, const char *what) {
    char path[4096];
    uint8_t *bytes = NULL;
    size_t size = 0;
    int length = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (length < 0 || (size_t)length >= sizeof path ||
        fi_file_read(&bytes, &size, path, MOST_PICTURE)) {
        (void)fputs("<div class=gone>picture missing</div>", stream);
        return;
    }
    fi_markup_picture(stream, what, bytes, size);
    free(bytes);
}

/* ---------------------------------------------------------------- cards ---------------------- */

/* The cosine as a length; an empty place where there is none, so that captions align. */
static void put_bar(FILE *stream, double cosine) {
    if (isnan(cosine))
        (void)fputs("<div class=\"bar none\"></div>", stream);
    else
        (void)fprintf(stream, "<div class=bar><i style=\"width:%.1f%%\"></i></div>",
                      100.0 * fmin(fmax(cosine, 0.0), 1.0));
}

static void put_original(FILE *stream, const fi_page *page, const json_t *item) {
    const char *name = string(item, "reference"), *class_name = string(item, "class_original");
    if (!name)
        return;
    (void)fputs("<figure>", stream);
    put_picture(stream, page->directory, name, "original");
    put_bar(stream, NAN);
    (void)fputs("<figcaption><b>original</b>", stream);
    if (class_name) {
        (void)fputs("<br><span class=soft>", stream);
        fi_markup_escape(stream, class_name);
        (void)fputs("</span>", stream);
    }
    (void)fputs("</figcaption></figure>\n", stream);
}

static void put_class(FILE *stream, const json_t *item) {
    const char *name = string(item, "class_sample");
    const json_t *match = json_object_get(item, "match_top1");
    if (!name && !json_is_boolean(match))
        return;
    (void)fprintf(stream, "<br><span class=%s>", json_is_false(match) ? "miss" : "soft");
    if (json_is_boolean(match))
        (void)fputs(json_is_true(match) ? "✓ " : "✗ ", stream);
    if (name)
        fi_markup_escape(stream, name);
    else
        (void)fputs(json_is_true(match) ? "same class" : "another class", stream);
    (void)fputs("</span>", stream);
}

static void put_sample(FILE *stream, const fi_page *page, const json_t *item) {
    const char *name = string(item, "image");
    double cosine = number(item, "cosine_median"), centred = number(item, "cosine_centred");
    if (!name)
        return;
    (void)fputs("<figure>", stream);
    put_picture(stream, page->directory, name, "sample");
    put_bar(stream, cosine);
    (void)fputs("<figcaption>", stream);
    if (isnan(cosine))
        (void)fprintf(stream, "<b>sample %lld</b>",
                      (long long)json_integer_value(json_object_get(item, "sample")));
    else
        (void)fprintf(stream, "<b>cosine %.3f</b>", cosine);
    if (!isnan(centred))
        (void)fprintf(stream, "<br><span class=soft>centred %.3f</span>", centred);
    put_class(stream, item);
    (void)fputs("</figcaption></figure>\n", stream);
}

static void put_spread(FILE *stream, const fi_page *page, const json_t *item) {
    const char *name = string(item, "spread");
    if (!name)
        return;
    (void)fputs("<figure>", stream);
    put_picture(stream, page->directory, name, "spread over the samples");
    put_bar(stream, NAN);
    (void)fputs("<figcaption><b>spread</b><br><span class=soft>bright: varies between samples, so "
                "the backbone ignores it</span></figcaption></figure>\n",
                stream);
}

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Whether both are samples of one input. */
static bool same_card(const json_t *a, const json_t *b) {
    return same_text(string(a, "input"), string(b, "input")) &&
           same_text(string(a, "reference"), string(b, "reference"));
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* The card of the items from first on; returns where the next one begins. */
static size_t put_card(FILE *stream, const fi_page *page, size_t first) {
    const json_t *head = json_array_get(page->items, first);
    size_t end = first;
    while (end < json_array_size(page->items) && same_card(head, json_array_get(page->items, end)))
        end++;
    if (string(head, "error"))
        return end;
    const char *input = string(head, "input");
    (void)fputs("<section class=card><h2 title=\"", stream);
    fi_markup_escape(stream, input);
    (void)fputs("\">", stream);
    fi_markup_escape(stream, base_name(input ? input : ""));
    (void)fputs("</h2><div class=row>\n", stream);
    put_original(stream, page, head);
    for (size_t i = first; i < end; i++)
        put_sample(stream, page, json_array_get(page->items, i));
    put_spread(stream, page, head);
    (void)fputs("</div></section>\n", stream);
    return end;
}

/* ---------------------------------------------------------------- summary -------------------- */

static void put_tile(FILE *stream, const char *value, const char *label) {
    (void)fprintf(stream, "<div class=tile><b>%s</b><span>%s</span></div>\n", value, label);
}

static void put_number_tile(FILE *stream, double value, const char *format, const char *label) {
    char text[64];
    if (isnan(value))
        return;
    (void)snprintf(text, sizeof text, format, value);
    put_tile(stream, text, label);
}

static void put_tiles(FILE *stream, const json_t *s) {
    char text[64], label[96];
    (void)fputs("<div class=tiles>\n", stream);
    put_number_tile(stream, number(s, "cosine_median"), "%.3f", "cosine of the features");
    put_number_tile(stream, number(s, "cosine_centred"), "%.3f", "cosine, mean removed");
    put_number_tile(stream, 100.0 * number(s, "match_top1"), "%.0f%%", "keep the class");
    put_number_tile(stream, 100.0 * number(s, "match_top5"), "%.0f%%", "keep it in the top 5");
    put_number_tile(stream, number(s, "images"), "%.0f", "images drawn");
    double seconds = number(s, "seconds"), each = number(s, "seconds_per_sample");
    if (!isnan(seconds)) {
        fi_markup_duration(text, sizeof text, seconds);
        (void)snprintf(label, sizeof label, isnan(each) ? "in all" : "in all, %.2f s each", each);
        put_tile(stream, text, label);
    }
    (void)fputs("</div>\n", stream);
}

static void put_about(FILE *stream, const json_t *s) {
    (void)fputs("<p class=about>", stream);
    fi_markup_escape(stream, string(s, "bundle") ? string(s, "bundle") : "no bundle");
    if (!isnan(number(s, "steps")))
        (void)fprintf(stream, " · %.0f steps", number(s, "steps"));
    if (!isnan(number(s, "scale")))
        (void)fprintf(stream, " · guidance scale %g", number(s, "scale"));
    if (string(s, "device")) {
        (void)fputs(" · ", stream);
        fi_markup_escape(stream, string(s, "device"));
        (void)fputs(" ", stream);
        fi_markup_escape(stream, string(s, "dtype"));
    }
    (void)fputs("</p>\n", stream);
}

static void put_errors(FILE *stream, const json_t *items) {
    size_t i, count = 0;
    json_t *item;
    json_array_foreach(items, i, item) {
        if (!string(item, "error"))
            continue;
        if (count++ == 0)
            (void)fputs("<section class=errors><h2>Not done</h2><ul>\n", stream);
        (void)fputs("<li><b>", stream);
        fi_markup_escape(stream, string(item, "input"));
        (void)fputs("</b>: ", stream);
        fi_markup_escape(stream, string(item, "error"));
        (void)fputs("</li>\n", stream);
    }
    if (count)
        (void)fputs("</ul></section>\n", stream);
}

static void put_footer(FILE *stream, const json_t *s) {
    (void)fputs(
        "<footer><p>Cosine: between the feature map of the original and that of the sample, "
        "at each position; the median over an image's positions, then the mean over "
        "images. Centred: the training images' channel means are removed from both "
        "maps first.</p>\n<p>libfeatinv ",
        stream);
    fi_markup_escape(stream, string(s, "version"));
    if (string(s, "bundle_sha256")) {
        (void)fputs(" · bundle ", stream);
        fi_markup_escape(stream, string(s, "bundle_sha256"));
    }
    (void)fputs("</p></footer>\n", stream);
}

featinv_status fi_page_write(const char *path, const fi_page *page) {
    fi_writer *writer;
    featinv_status status = fi_writer_open(&writer, path);
    if (status)
        return status;
    FILE *stream = fi_writer_stream(writer);
    fi_markup_begin(stream, page->title, NULL);
    put_about(stream, page->summary);
    put_tiles(stream, page->summary);
    put_errors(stream, page->items);
    (void)fputs("<div class=cards>\n", stream);
    for (size_t i = 0; i < json_array_size(page->items);)
        i = put_card(stream, page, i);
    (void)fputs("</div>\n", stream);
    put_footer(stream, page->summary);
    fi_markup_end(stream);
    return fi_writer_commit(writer);
}
