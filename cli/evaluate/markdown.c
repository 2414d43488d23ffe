/* tables.md of an evaluation. */
#include "present.h"

#include "../cli.h"

#include <stdlib.h>
#include <string.h>

/* Text in which nothing is markup. A bracket is only where a link would follow, so that intervals
 * stay as they are. Line breaks and other control characters become spaces. */
static void put_text(FILE *stream, const char *text) {
    for (const char *c = text ? text : ""; *c; c++) {
        bool link = *c == ']' && (c[1] == '(' || c[1] == '[' || c[1] == ':');
        if (link || strchr("\\`*_<>|&#~!", *c))
            (void)fputc('\\', stream);
        (void)fputc((unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c, stream);
    }
}

static void put_row(FILE *stream, const char *name, const json_t *cells) {
    const json_t *cell;
    size_t j;
    (void)fputs("| ", stream);
    put_text(stream, name);
    json_array_foreach(cells, j, cell) {
        (void)fputs(" | ", stream);
        put_text(stream, json_string_value(cell));
    }
    (void)fputs(" |\n", stream);
}

static void put_grid(FILE *stream, const json_t *grid) {
    const json_t *columns = json_object_get(grid, "columns"), *row;
    size_t i;
    (void)fputs("\n## ", stream);
    put_text(stream, evaluation_string(grid, "heading"));
    (void)fputs("\n\n", stream);
    put_text(stream, evaluation_string(grid, "text"));
    (void)fputs("\n\n", stream);
    put_row(stream, evaluation_string(grid, "corner"), columns);
    (void)fputs("| ---", stream);
    for (size_t j = 0; j < json_array_size(columns); j++)
        (void)fputs(" | ---:", stream);
    (void)fputs(" |\n", stream);
    json_array_foreach(json_object_get(grid, "rows"), i, row) {
        put_row(stream, evaluation_string(row, "name"), json_object_get(row, "cells"));
    }
    if (json_object_get(grid, "note")) {
        (void)fputc('\n', stream);
        put_text(stream, evaluation_string(grid, "note"));
        (void)fputc('\n', stream);
    }
}

static void put_glossary(FILE *stream) {
    (void)fputs("\n## What the columns say\n\n", stream);
    for (size_t i = 0; evaluation_glossary[i][0]; i++) {
        (void)fputs("- **", stream);
        put_text(stream, evaluation_glossary[i][0]);
        (void)fputs("**: ", stream);
        put_text(stream, evaluation_glossary[i][1]);
        (void)fputc('\n', stream);
    }
    (void)fputs("- **" EVALUATION_DASH "**: not measured, or without a meaning in that row.\n\n",
                stream);
    put_text(stream, evaluation_citation);
    (void)fputc('\n', stream);
}

static void put_problems(FILE *stream, const json_t *problems) {
    const json_t *problem;
    size_t i;
    if (json_array_size(problems))
        (void)fputs("\n## Not done\n\n", stream);
    json_array_foreach(problems, i, problem) {
        json_t *text = evaluation_problem(problem);
        (void)fputs("- ", stream);
        put_text(stream, json_string_value(text));
        (void)fputc('\n', stream);
        json_decref(text);
    }
}

int evaluation_markdown_write(const char *folder, const json_t *tables, const json_t *grids) {
    cli_writer writer = {0};
    char *path = cli_path(folder, "tables.md");
    int code = path ? cli_writer_open(&writer, path) : cli_fail_memory();
    free(path);
    if (code)
        return code;
    json_t *settings = evaluation_settings_line(tables);
    const json_t *grid;
    size_t i;
    (void)fputs("# Evaluation\n\n", writer.stream);
    put_text(writer.stream, evaluation_about);
    (void)fputs("\n\n", writer.stream);
    put_text(writer.stream, settings ? json_string_value(settings) : "");
    (void)fputc('\n', writer.stream);
    json_decref(settings);
    json_array_foreach(grids, i, grid) {
        put_grid(writer.stream, grid);
    }
    put_glossary(writer.stream);
    put_problems(writer.stream, json_object_get(tables, "problems"));
    return cli_writer_commit(&writer);
}
