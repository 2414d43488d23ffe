/* Markup that the report and the command's pages have in common. */
#include "markup.h"

#include <stdbool.h>

static const char style[] =
    ":root{color-scheme:light dark;--bg:#f6f5f2;--card:#fff;--ink:#1d1f23;--soft:#696d76;"
    "--line:#e2e0da;--accent:#1f6f62;--track:#e9e7e1;--bad:#a8322a;--badbg:#fbeeec}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14161a;--card:#1d2026;--ink:#e8e8e6;"
    "--soft:#9ca1ab;--line:#2e323a;--accent:#6cc5b3;--track:#2b2f37;--bad:#f0938a;"
    "--badbg:#33201f}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"
    "'Segoe UI',Roboto,'Noto Sans',sans-serif}\n"
    "main{max-width:1240px;margin:0 auto;padding:2.2rem 1.2rem 3rem}\n"
    "h1{font-size:1.7rem;line-height:1.2;letter-spacing:-.01em;margin:0 0 .2rem}\n"
    "h2{font-size:1rem;margin:0 0 .4rem}\n"
    ".about{color:var(--soft);margin:0 0 1.5rem}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:.7rem;"
    "margin:0 0 1.6rem}\n"
    ".tile{background:var(--card);border:1px solid var(--line);border-radius:10px;"
    "padding:.7rem .9rem}\n"
    ".tile b{display:block;font-size:1.45rem;line-height:1.25;font-weight:600;"
    "font-variant-numeric:tabular-nums}\n"
    ".tile span{color:var(--soft);font-size:.82rem}\n"
    ".errors{background:var(--badbg);border:1px solid var(--bad);border-radius:10px;"
    "padding:.8rem 1rem;margin:0 0 1.6rem}\n"
    ".errors h2{color:var(--bad)}.errors ul{margin:0;padding-left:1.1rem}\n"
    ".errors li{overflow-wrap:anywhere}\n"
    ".cards{display:flex;flex-wrap:wrap;gap:1rem}\n"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:12px;"
    "padding:.8rem .9rem .9rem;max-width:100%}\n"
    ".card h2{font-size:.9rem;font-weight:600;overflow:hidden;text-overflow:ellipsis;"
    "white-space:nowrap;max-width:38rem}\n"
    ".row{display:flex;flex-wrap:wrap;gap:.8rem}\n"
    "figure{margin:0;width:172px}\n"
    "figure img{display:block;width:172px;height:auto;border-radius:6px;background:var(--track)}\n"
    ".gone{width:172px;height:172px;border-radius:6px;background:var(--track);color:var(--soft);"
    "display:grid;place-items:center;font-size:.82rem}\n"
    "figcaption{font-size:.82rem;line-height:1.35;margin-top:.4rem;overflow-wrap:anywhere}\n"
    "figcaption b{font-size:.95rem;font-variant-numeric:tabular-nums}\n"
    "figcaption .soft{color:var(--soft)}figcaption .miss{color:var(--bad)}\n"
    ".bar{height:4px;border-radius:2px;background:var(--track);margin:.45rem 0 0;overflow:hidden}\n"
    ".bar i{display:block;height:100%;background:var(--accent)}.none{background:none}\n"
    "footer{color:var(--soft);font-size:.82rem;margin-top:2rem;border-top:1px solid var(--line);"
    "padding-top:1rem}footer p{margin:.3rem 0;overflow-wrap:anywhere}\n"
    "@media(max-width:480px){main{padding:1.2rem .7rem 2rem}.card{width:100%}"
    "figure,figure img,.gone{width:calc(50vw - 2.2rem)}.gone{height:calc(50vw - 2.2rem)}}\n"
    "@media print{body{background:#fff}.card{break-inside:avoid}}\n";

void fi_markup_escape(FILE *stream, const char *text) {
    for (const char *c = text ? text : ""; *c; c++) {
        switch (*c) {
        case '&':
            (void)fputs("&amp;", stream);
            break;
        case '<':
            (void)fputs("&lt;", stream);
            break;
        case '>':
            (void)fputs("&gt;", stream);
            break;
        case '"':
            (void)fputs("&quot;", stream);
            break;
        case '\'':
            (void)fputs("&#39;", stream);
            break;
        default:
            if ((unsigned char)*c >= 0x20 && *c != 0x7f)
                (void)fputc(*c, stream);
        }
    }
}

static void base64(FILE *stream, const uint8_t *bytes, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char block[4096];
    size_t used = 0;
    for (size_t i = 0; i < size; i += 3) {
        uint32_t word = (uint32_t)bytes[i] << 16;
        word |= i + 1 < size ? (uint32_t)bytes[i + 1] << 8 : 0;
        word |= i + 2 < size ? bytes[i + 2] : 0;
        block[used++] = digits[word >> 18];
        block[used++] = digits[word >> 12 & 63];
        block[used++] = i + 1 < size ? digits[word >> 6 & 63] : '=';
        block[used++] = i + 2 < size ? digits[word & 63] : '=';
        if (used == sizeof block) {
            (void)fwrite(block, 1, used, stream);
            used = 0;
        }
    }
    (void)fwrite(block, 1, used, stream);
}

static bool is_jpeg(const uint8_t *bytes, size_t size) {
    return size > 2 && bytes[0] == 0xff && bytes[1] == 0xd8;
}

void fi_markup_picture(FILE *stream, const char *what, const uint8_t *bytes, size_t size) {
    (void)fputs("<img alt=\"", stream);
    fi_markup_escape(stream, what);
    (void)fprintf(stream, "\" src=\"data:image/%s;base64,", is_jpeg(bytes, size) ? "jpeg" : "png");
    base64(stream, bytes, size);
    (void)fputs("\">", stream);
}

void fi_markup_begin(FILE *stream, const char *title, const char *more_style) {
    (void)fputs("<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n"
                "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n<title>",
                stream);
    fi_markup_escape(stream, title);
    (void)fprintf(stream, "</title>\n<style>\n%s%s</style></head>\n<body><main>\n<h1>", style,
                  more_style ? more_style : "");
    fi_markup_escape(stream, title);
    (void)fputs("</h1>\n", stream);
}

void fi_markup_end(FILE *stream) {
    (void)fputs("</main></body></html>\n", stream);
}

void fi_markup_duration(char *text, size_t capacity, double seconds) {
    long long whole = (long long)(seconds + 0.5);
    if (seconds < 60)
        (void)snprintf(text, capacity, "%.1f s", seconds);
    else if (whole < 3600)
        (void)snprintf(text, capacity, "%lld min %02lld s", whole / 60, whole % 60);
    else
        (void)snprintf(text, capacity, "%lld h %02lld min", whole / 3600, whole / 60 % 60);
}
