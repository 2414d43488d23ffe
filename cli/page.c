#include "page.h"

#include "cli.h"
#include "../lib/markup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char style[] =
    ".about{max-width:52rem;font-size:1rem;color:var(--ink)}\n"
    ".card{margin:0 0 1rem}.card>h2{font-size:1.05rem;max-width:none;white-space:normal}\n"
    ".card p{color:var(--soft);margin:0 0 .7rem;max-width:52rem}\n"
    ".row{margin:0 0 .9rem}.row>h3{flex:0 0 100%;font-size:.82rem;font-weight:600;margin:0;"
    "color:var(--soft)}\n"
    "figcaption{white-space:pre-line}\n"
    ".signed{position:relative;overflow:visible}.signed:after{content:'';position:absolute;"
    "left:50%;top:-2px;width:1px;height:8px;background:var(--soft)}\n"
    ".signed i{position:absolute}.signed i.minus{background:var(--bad)}\n"
    "table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line)}\n"
    "th{font-weight:600;color:var(--soft)}th:first-child{text-align:left}\n"
    ".scroll{overflow-x:auto}\n"
    "svg.curve{display:block;width:100%;max-width:34rem;height:auto;font:11px system-ui,"
    "sans-serif;margin:.2rem 0 .6rem}\n";

/* ---------------------------------------------------------------- page ----------------------- */

void cli_page_open(cli_page *page, const char *folder, const char *title, const char *about) {
    *page = (cli_page){.folder = folder};
    char *path = cli_path(folder, "index.html");
    page->code = path ? cli_writer_open(&page->writer, path) : cli_fail_memory();
    free(path);
    page->stream = page->writer.stream;
    if (!page->stream)
        return;
    fi_markup_begin(page->stream, title, style);
    (void)fputs("<p class=about>", page->stream);
    fi_markup_escape(page->stream, about);
    (void)fputs("</p>\n", page->stream);
}

int cli_page_close(cli_page *page, const char *bundle_sha256, bool failed) {
    if (!page->stream)
        return page->code;
    if (failed || page->code) {
        cli_writer_abort(&page->writer);
        page->stream = NULL;
        return page->code;
    }
    (void)fprintf(page->stream, "<footer><p>libfeatinv %s", featinv_version());
    if (bundle_sha256) {
        (void)fputs(" · bundle ", page->stream);
        fi_markup_escape(page->stream, bundle_sha256);
    }
    (void)fputs("</p></footer>\n", page->stream);
    fi_markup_end(page->stream);
    page->stream = NULL;
    return cli_writer_commit(&page->writer);
}

static void put(cli_page *page, const char *markup) {
    if (page->stream)
        (void)fputs(markup, page->stream);
}

static void put_text(cli_page *page, const char *text) {
    if (page->stream)
        fi_markup_escape(page->stream, text);
}

/* Escaped, with its line breaks, which the escaping leaves out. */
static void put_lines(cli_page *page, const char *lines) {
    for (const char *at = lines; at && page->stream;) {
        const char *end = strchr(at, '\n');
        char *line = end ? strndup(at, (size_t)(end - at)) : NULL;
        put_text(page, end ? line : at);
        free(line);
        at = end ? end + 1 : NULL;
        if (at)
            (void)fputc('\n', page->stream);
    }
}

/* ---------------------------------------------------------------- blocks --------------------- */

void cli_page_tiles(cli_page *page) {
    put(page, "<div class=tiles>\n");
}

void cli_page_tile(cli_page *page, const char *value, const char *label) {
    put(page, "<div class=tile><b>");
    put_text(page, value);
    put(page, "</b><span>");
    put_text(page, label);
    put(page, "</span></div>\n");
}

void cli_page_tiles_end(cli_page *page) {
    put(page, "</div>\n");
}

void cli_page_text(cli_page *page, const char *text) {
    put(page, "<p>");
    put_text(page, text);
    put(page, "</p>\n");
}

void cli_page_card(cli_page *page, const char *heading, const char *text) {
    put(page, "<section class=card><h2>");
    put_text(page, heading);
    put(page, "</h2>\n");
    if (text)
        cli_page_text(page, text);
}

void cli_page_card_end(cli_page *page) {
    put(page, "</section>\n");
}

void cli_page_row(cli_page *page, const char *label) {
    put(page, "<div class=row>\n");
    if (label) {
        put(page, "<h3>");
        put_text(page, label);
        put(page, "</h3>\n");
    }
}

void cli_page_row_end(cli_page *page) {
    put(page, "</div>\n");
}

/* ---------------------------------------------------------------- pictures ------------------- */

static uint8_t *read_bytes(size_t *size, const char *path) {
    struct stat info;
    FILE *stream = fopen(path, "re");
    uint8_t *bytes = NULL;
    *size = 0;
    if (stream && fstat(fileno(stream), &info) == 0 && S_ISREG(info.st_mode))
        bytes = malloc((size_t)info.st_size + 1);
    if (bytes)
        *size = fread(bytes, 1, (size_t)info.st_size, stream);
    if (stream)
        (void)fclose(stream);
    return bytes;
}

static void put_bar(cli_page *page, double bar, bool is_signed) {
    double share = fmin(fmax(bar, is_signed ? -1.0 : 0.0), 1.0);
    if (isnan(bar))
        put(page, "<div class=\"bar none\"></div>");
    else if (!is_signed)
        (void)fprintf(page->stream, "<div class=bar><i style=\"width:%.1f%%\"></i></div>",
                      100.0 * share);
    else
        (void)fprintf(page->stream,
                      "<div class=\"bar signed\"><i class=%s style=\"left:%.1f%%;width:%.1f%%\">"
                      "</i></div>",
                      share < 0.0 ? "minus" : "plus", 50.0 + 50.0 * fmin(share, 0.0),
                      50.0 * fabs(share));
}

void cli_page_picture(cli_page *page, const char *name, const char *head, const char *lines,
                      double bar, bool is_signed) {
    if (!page->stream)
        return;
    size_t size;
    char *path = cli_path(page->folder, name);
    uint8_t *bytes = path ? read_bytes(&size, path) : NULL;
    put(page, "<figure>");
    if (bytes)
        fi_markup_picture(page->stream, head ? head : name, bytes, size);
    else
        put(page, "<div class=gone>picture missing</div>");
    put_bar(page, bar, is_signed);
    put(page, "<figcaption>");
    if (head) {
        put(page, "<b>");
        put_text(page, head);
        put(page, "</b>\n");
    }
    if (lines) {
        put(page, "<span class=soft>");
        put_lines(page, lines);
        put(page, "</span>");
    }
    put(page, "</figcaption></figure>\n");
    free(bytes);
    free(path);
}

/* ---------------------------------------------------------------- numbers -------------------- */

void cli_page_table(cli_page *page, const cli_table *table) {
    if (!page->stream)
        return;
    put(page, "<div class=scroll><table><tr><th>");
    put_text(page, table->corner);
    put(page, "</th>");
    for (size_t j = 0; j < table->columns; j++) {
        put(page, "<th>");
        put_text(page, table->column_names[j]);
        put(page, "</th>");
    }
    put(page, "</tr>\n");
    for (size_t i = 0; i < table->rows; i++) {
        put(page, "<tr><th>");
        put_text(page, table->row_names[i]);
        put(page, "</th>");
        for (size_t j = 0; j < table->columns; j++) {
            size_t at = i * table->columns + j;
            if (table->strength)
                (void)fprintf(page->stream,
                              "<td style=\"background:color-mix(in srgb,var(--accent) %.0f%%,"
                              "transparent)\">",
                              60.0 * fmin(fmax(table->strength[at], 0.0), 1.0));
            else
                put(page, "<td>");
            put_text(page, table->cells[at]);
            put(page, "</td>");
        }
        put(page, "</tr>\n");
    }
    put(page, "</table></div>\n");
}

enum { LEFT = 52, TOP = 10, WIDE = 460, HIGH = 170, ROOM = 44 };

static double place(double value, double low, double high) {
    return high > low ? fmin(fmax((value - low) / (high - low), 0.0), 1.0) : 0.5;
}

static void put_axes(cli_page *page, const cli_curve *c, double low, double high) {
    FILE *s = page->stream;
    (void)fprintf(s, "<g stroke=\"currentColor\" stroke-opacity=\".25\">");
    for (int i = 0; i <= 4; i++)
        (void)fprintf(s, "<path d=\"M%d %.1fh%d\"/>", LEFT, TOP + HIGH * i / 4.0, WIDE);
    (void)fprintf(s, "</g><g fill=\"currentColor\">");
    for (int i = 0; i <= 4; i++) {
        (void)fprintf(s, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>", LEFT - 6,
                      TOP + HIGH * i / 4.0 + 4.0, c->y_high + (c->y_low - c->y_high) * i / 4.0);
        (void)fprintf(s, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.3g</text>",
                      LEFT + WIDE * i / 4.0, TOP + HIGH + 16, low + (high - low) * i / 4.0);
    }
    (void)fprintf(s, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", LEFT + WIDE / 2,
                  TOP + HIGH + 34);
    put_text(page, c->x_name);
    (void)fprintf(s,
                  "</text><text transform=\"rotate(-90)\" x=\"%d\" y=\"12\" "
                  "text-anchor=\"middle\">",
                  -(TOP + HIGH / 2));
    put_text(page, c->y_name);
    put(page, "</text></g>\n");
}

void cli_page_curve(cli_page *page, const cli_curve *c) {
    if (!page->stream || !c->count)
        return;
    FILE *s = page->stream;
    double low = c->x[0], high = c->x[c->count - 1];
    (void)fprintf(s, "<svg class=curve viewBox=\"0 0 %d %d\" role=img aria-label=\"",
                  LEFT + WIDE + 16, TOP + HIGH + ROOM);
    put_text(page, c->y_name);
    put(page, "\">");
    put_axes(page, c, low, high);
    if (!isnan(c->mark))
        (void)fprintf(s, "<path d=\"M%.1f %dv%d\" stroke=\"var(--bad)\" stroke-dasharray=\"4 3\"/>",
                      LEFT + WIDE * place(c->mark, low, high), TOP, HIGH);
    (void)fprintf(s, "<path fill=none stroke=\"var(--accent)\" stroke-width=2 d=\"");
    bool pen = false;
    for (size_t i = 0; i < c->count; i++) {
        if (!isnan(c->y[i]))
            (void)fprintf(s, "%c%.1f %.1f", pen ? 'L' : 'M',
                          LEFT + WIDE * place(c->x[i], low, high),
                          TOP + HIGH * (1.0 - place(c->y[i], c->y_low, c->y_high)));
        pen = pen || !isnan(c->y[i]);
    }
    put(page, "\"/><g fill=\"var(--accent)\">");
    for (size_t i = 0; i < c->count; i++)
        if (!isnan(c->y[i]))
            (void)fprintf(s, "<circle r=3 cx=\"%.1f\" cy=\"%.1f\"/>",
                          LEFT + WIDE * place(c->x[i], low, high),
                          TOP + HIGH * (1.0 - place(c->y[i], c->y_low, c->y_high)));
    put(page, "</g></svg>\n");
}

void cli_page_errors(cli_page *page, const json_t *items) {
    size_t i, count = 0;
    json_t *item;
    json_array_foreach(items, i, item) {
        const char *error = json_string_value(json_object_get(item, "error"));
        if (!error)
            continue;
        if (count++ == 0)
            put(page, "<section class=errors><h2>Not done</h2><ul>\n");
        put(page, "<li>");
        put_text(page, error);
        put(page, "</li>\n");
    }
    if (count)
        put(page, "</ul></section>\n");
}
