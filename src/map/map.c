/*
 * map.c: the mapping table's memory and its free list of ids.
 *
 * Layer 3. Read map.h first.
 *
 * The free list is a stack through FREE words: its head carries a tag that each pop and push changes, so that a pop whose
 * head was popped and pushed again meanwhile fails (ABA). A pop reads the word of an id that another pop may have handed
 * out already; then the word is no FREE word, or the tag has changed, and it starts again.
 */
#include "map/map.h"

#include <sys/mman.h>

#include <quire/quire.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/stop.h"

#define DEFAULT_CAPACITY ((uint64_t)1 << 32)
#define SMALLEST_CAPACITY ((uint64_t)1 << 16)
#define CHARGE_STEP_BYTES 65536u

#define LIST_ID_BITS 40
#define LIST_ID_MASK (((uint64_t)1 << LIST_ID_BITS) - 1)

static uint64_t list_head(uint64_t old_head, uint64_t pid)
{
    return ((old_head >> LIST_ID_BITS) + !QR_BUG(free_list_untagged)) << LIST_ID_BITS | pid;
}

/* Addresses for the words of so many ids, or of fewer: halves *capacity until the system has them. MAP_FAILED. */
static void *map_words(uint64_t *capacity)
{
    void *words = MAP_FAILED;
    if (qr_alloc_must_fail()) return MAP_FAILED;
    for (; *capacity >= 2; *capacity /= 2) {
        words = mmap(NULL, *capacity * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (words != MAP_FAILED || *capacity <= SMALLEST_CAPACITY) break;
    }
    return words;
}

int qr_map_create(struct qr_arena *arena, uint64_t capacity, struct qr_map **ret_map)
{
    struct qr_map *map = qr_malloc_aligned(64, sizeof(*map));
    if (map == NULL) return QUIRE_ERR_NO_MEMORY;
    if (capacity == 0) capacity = DEFAULT_CAPACITY;

    void *words = map_words(&capacity);
    if (words == MAP_FAILED) {
        qr_free_aligned(map);
        return QUIRE_ERR_NO_MEMORY;
    }
    map->words = words;
    map->capacity = capacity;
    map->arena = arena;
    map->changes = NULL;
    atomic_init(&map->next_pid, QR_PID_NONE + 1);
    atomic_init(&map->charged_bytes, 0);
    atomic_init(&map->free_list, QR_PID_NONE);
    atomic_init(&map->free_count, 0);
    for (uint32_t i = 0; i < QR_FLOOR_COUNT; i++) atomic_init(&map->floors[i], 0);
    *ret_map = map;
    return 0;
}

/* ---- Structure changes ------------------------------------------------------------------------------------------ */

static size_t changes_size(const struct qr_map *map)
{
    return map->capacity / 64 * sizeof(uint64_t) + sizeof(uint64_t);
}

int qr_map_keep_changes(struct qr_map *map)
{
    if (qr_alloc_must_fail()) return QUIRE_ERR_NO_MEMORY;
    void *bits = mmap(NULL, changes_size(map), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bits == MAP_FAILED) return QUIRE_ERR_NO_MEMORY;
    map->changes = bits;
    return 0;
}

bool qr_map_take_change(struct qr_map *map, uint64_t pid)
{
    uint64_t bit = (uint64_t)1 << pid % 64;
    /* order: map.change.take pairs with map.change.note: the words of what was taken are loaded afterwards */
    return (atomic_fetch_and_explicit(&map->changes[pid / 64], ~bit, memory_order_seq_cst) & bit) != 0;
}

uint64_t qr_map_take_changes(struct qr_map *map, uint64_t first_pid)
{
    /* relaxed: most of them are empty; what is missed now is found the next time */
    if (atomic_load_explicit(&map->changes[first_pid / 64], memory_order_relaxed) == 0) return 0;
    /* order: map.change.take as above */
    return atomic_exchange_explicit(&map->changes[first_pid / 64], 0, memory_order_seq_cst);
}

bool qr_map_has_changes(const struct qr_map *map)
{
    uint64_t end = qr_map_end(map);
    for (uint64_t i = 0; i <= end / 64; i++) {
        /* order: map.change.take as above */
        if (atomic_load_explicit(&map->changes[i], memory_order_seq_cst) != 0) return true;
    }
    return false;
}

uint64_t qr_map_end(const struct qr_map *map)
{
    /* order: map.end.read: ids that were handed out before what the caller has seen are below it; pairs with map.install */
    return atomic_load_explicit(&map->next_pid, memory_order_acquire);
}

void qr_map_destroy(struct qr_map *map)
{
    if (map == NULL) return;
    qr_arena_charge(map->arena, -(int64_t)qr_map_charged_bytes(map));
    munmap((void *)(uintptr_t)map->words, map->capacity * sizeof(uint64_t));
    if (map->changes != NULL) munmap((void *)(uintptr_t)map->changes, changes_size(map));
    qr_free_aligned(map);
}

/* Counts the part of the table up to this id against the limit, in steps. */
static bool charge(struct qr_map *map, uint64_t pid, bool use_reserve)
{
    uint64_t needed = qr_round_up((pid + 1) * sizeof(uint64_t), CHARGE_STEP_BYTES);
    /* relaxed: a sum for the limit; whoever loses the exchange looks again */
    uint64_t charged = atomic_load_explicit(&map->charged_bytes, memory_order_relaxed);
    while (charged < needed) {
        if (!use_reserve && qr_arena_over(map->arena, 100)) return false;
        /* relaxed: as above */
        if (atomic_compare_exchange_weak_explicit(&map->charged_bytes, &charged, needed, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            qr_arena_charge(map->arena, (int64_t)(needed - charged));
            break;
        }
    }
    return true;
}

/* QR_PID_NONE if the list is empty. */
static uint64_t pop(struct qr_map *map)
{
    /* order: map.free.pop pairs with map.free.push: the link in the FREE word */
    uint64_t head = atomic_load_explicit(&map->free_list, memory_order_acquire);
    for (;;) {
        uint64_t pid = head & LIST_ID_MASK;
        if (pid == QR_PID_NONE) return QR_PID_NONE;
        qr_word word = qr_map_load(map, pid);
        uint64_t next = qr_word_tag(word) == QR_WORD_FREE ? qr_word_value(word) : QR_PID_NONE;
        QR_STOP("map.pop");
        /* order: map.free.pop as above; the tag in the head makes a changed list fail */
        if (atomic_compare_exchange_weak_explicit(&map->free_list, &head, list_head(head, next), memory_order_acquire,
                                                  memory_order_acquire))
            return pid;
    }
}

int qr_map_alloc(struct qr_map *map, qr_word word, bool use_reserve, uint64_t *ret_pid)
{
    if (qr_alloc_must_fail()) return QUIRE_ERR_NO_MEMORY;
    uint64_t pid = pop(map);
    if (pid != QR_PID_NONE) {
        /* relaxed: a gauge */
        atomic_fetch_sub_explicit(&map->free_count, 1, memory_order_relaxed);
    } else {
        /* relaxed: ids are only counted out; what they name is published by the word */
        pid = atomic_load_explicit(&map->next_pid, memory_order_relaxed);
        do {
            if (pid >= map->capacity || !charge(map, pid, use_reserve)) return QUIRE_ERR_NO_MEMORY;
            /* relaxed: as above */
        } while (!atomic_compare_exchange_weak_explicit(&map->next_pid, &pid, pid + 1, memory_order_relaxed,
                                                        memory_order_relaxed));
    }
    /* order: map.install pairs with map.read: the id is known to nobody, the block must be seen by who learns it */
    atomic_store_explicit(&map->words[pid], word.bits, memory_order_release);
    *ret_pid = pid;
    return 0;
}

void qr_map_free(struct qr_map *map, uint64_t pid)
{
    QR_ASSERT(pid != QR_PID_NONE && pid < map->capacity);
    /* relaxed: the exchange below checks it */
    uint64_t head = atomic_load_explicit(&map->free_list, memory_order_relaxed);
    do {
        /* relaxed: published by the exchange */
        atomic_store_explicit(&map->words[pid], qr_word_number(QR_WORD_FREE, head & LIST_ID_MASK).bits,
                              memory_order_relaxed);
        /* order: map.free.push pairs with map.free.pop: the link in the FREE word */
    } while (!atomic_compare_exchange_weak_explicit(&map->free_list, &head, list_head(head, pid), memory_order_release,
                                                    memory_order_relaxed));
    /* relaxed: a gauge */
    atomic_fetch_add_explicit(&map->free_count, 1, memory_order_relaxed);
}

int qr_map_restore(struct qr_map *map, uint64_t next_pid, const uint64_t *free_ids, uint64_t free_count)
{
    if (next_pid > map->capacity || next_pid == QR_PID_NONE || !charge(map, next_pid, true)) return QUIRE_ERR_NO_MEMORY;
    atomic_init(&map->next_pid, next_pid);
    for (uint64_t i = 0; i < free_count; i++) qr_map_free(map, free_ids[i]);
    return 0;
}

void qr_map_raise_floor(struct qr_map *map, uint64_t pid, uint64_t max_lsn)
{
    _Atomic uint64_t *floor = &map->floors[pid % QR_FLOOR_COUNT];
    /* relaxed: the exchange below checks it */
    uint64_t present = atomic_load_explicit(floor, memory_order_relaxed);
    /* order: map.floor.raise pairs with map.floor.read: before the DISK word */
    while (present < max_lsn && !atomic_compare_exchange_weak_explicit(floor, &present, max_lsn, memory_order_release,
                                                                       memory_order_relaxed)) {
    }
}

uint64_t qr_map_charged_bytes(const struct qr_map *map)
{
    /* relaxed: a gauge */
    return atomic_load_explicit(&map->charged_bytes, memory_order_relaxed);
}

uint64_t qr_map_ids_in_use(const struct qr_map *map)
{
    /* relaxed: gauges */
    uint64_t used = atomic_load_explicit(&map->next_pid, memory_order_relaxed) - 1;
    uint64_t freed = atomic_load_explicit(&map->free_count, memory_order_relaxed);
    return used > freed ? used - freed : 0;
}
