/*
 * The range of --start, --end and --prefix.
 *
 * Layer: tools.
 */
#include "tool.h"

int range_from_settings(struct range *ret_range)
{
    struct range range = {0};
    int code = EXIT_DONE;
    *ret_range = range;
    if (settings.prefix != NULL && (settings.start != NULL || settings.end != NULL))
        return tool_fail(EXIT_WRONG, "--prefix goes with neither --start nor --end");
    if (settings.start != NULL || settings.prefix != NULL) {
        code = bytes_argument(&range.start, settings.prefix != NULL ? settings.prefix : settings.start);
        range.has_start = true;
    }
    if (code == EXIT_DONE && settings.end != NULL) {
        code = bytes_argument(&range.end, settings.end);
        range.has_end = true;
    }
    if (code == EXIT_DONE && settings.prefix != NULL) {
        /* Up to the first key that does not begin with it: its last byte that can grow, grown. */
        size_t size = range.start.size;
        while (size > 0 && (unsigned char)range.start.data[size - 1] == 0xff)
            size--;
        if (size > 0) {
            if (!bytes_add(&range.end, range.start.data, size))
                code = tool_fail(EXIT_FAILED, "no memory");
            else
                range.end.data[size - 1]++;
            range.has_end = true;
        }
    }
    *ret_range = range;
    return code;
}

void range_options(const struct range *range, struct quire_pages_options *ret_options)
{
    quire_pages_options_init(ret_options);
    if (range->has_start)
        ret_options->start = (struct quire_slice){range->start.data, range->start.size};
    if (range->has_end)
        ret_options->end = (struct quire_slice){range->end.data, range->end.size};
    if (settings.version_given)
        ret_options->version = settings.version;
    ret_options->reverse = settings.reverse;
}

void range_free(struct range *range)
{
    bytes_free(&range->start);
    bytes_free(&range->end);
}
