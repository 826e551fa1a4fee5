/*
 * quire-bench: measures Quire and its peers side by side. See README.md in this folder.
 *
 * Layer: bench.
 */
#include "options.h"
#include "runner.h"

int main(int argc, char **argv)
{
    struct bench_options options;

    switch (bench_options_parse(argc, argv, &options)) {
    case BENCH_PARSE_RUN:
        return (options.child != NULL ? bench_run_child(&options) : bench_run_all(&options)) == 0 ? 0 : 1;
    case BENCH_PARSE_DONE:
        return 0;
    case BENCH_PARSE_WRONG:
        break;
    }
    return 2;
}
