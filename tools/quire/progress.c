/*
 * A bar on standard error while something takes long; nothing if that is no terminal.
 *
 * Layer: tools.
 */
#include "tool.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BAR_PARTS = 40, PAUSE_MS = 100 };

static bool shown;
static uint64_t last_ms;

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void progress_show(const char *what, uint64_t done, uint64_t all)
{
    static int terminal = -1;
    char bar[BAR_PARTS + 1];
    if (terminal < 0)
        terminal = isatty(STDERR_FILENO);
    uint64_t now = now_ms();
    if (!terminal || now - last_ms < PAUSE_MS)
        return;
    last_ms = now;
    shown = true;
    if (all == 0) {
        fprintf(stderr, "\r  %s: %" PRIu64 " ", what, done);
    } else {
        size_t full = done < all ? (size_t)(done * BAR_PARTS / all) : BAR_PARTS;
        memset(bar, '.', BAR_PARTS);
        memset(bar, '#', full);
        bar[BAR_PARTS] = '\0';
        fprintf(stderr, "\r  %s [%s] %3u %%", what, bar, (unsigned)(full * 100 / BAR_PARTS));
    }
    fflush(stderr);
}

void progress_end(void)
{
    if (shown)
        fprintf(stderr, "\r\033[K");
    shown = false;
}

int progress_of_recovery(void *context, uint64_t done_bytes, uint64_t all_bytes)
{
    (void)context;
    progress_show("reading the log", done_bytes, all_bytes);
    return 0;
}
