/*
 * The arena's stacks: empty magazines, and the depot of magazines with free blocks.
 * Layer 0 (base).
 *
 * Any thread, lock-free; the argument about ABA is in arena_internal.h. A magazine's plain fields pass from thread to
 * thread with the head of a stack: the push publishes them (arena.push), the pop that gets the magazine reads them
 * after it (arena.pop). Between the two only compare-and-swaps change the head, so the pop is ordered after the push of
 * the element that it takes even if others were pushed and popped on top of it.
 *
 * The table of magazines grows in steps and is never unmapped; making a step writable may be done by several threads at
 * once, which changes nothing.
 */
#include "base/arena_internal.h"

#include <sys/mman.h>

#include "base/alloc.h"

enum { MAGAZINE_STEP_COUNT = 256 }; /* 64 KiB made writable at a time */

/* ---- Stacks ----------------------------------------------------------------------------------------------------- */

static _Atomic uint32_t *next_of(char *table, size_t element_bytes, uint32_t number)
{
    QR_ASSERT(number > 0);
    return (_Atomic uint32_t *)(void *)(table + (size_t)(number - 1) * element_bytes);
}

static uint64_t head_word(uint64_t old_head, uint32_t number)
{
    return (((old_head >> 32) + 1) << 32) | number;
}

void qr_arena_stack_push(struct qr_arena_stack *stack, char *table, size_t element_bytes, uint32_t number)
{
    _Atomic uint32_t *next = next_of(table, element_bytes, number);
    /* relaxed: the compare-and-swap below fails if it is stale */
    uint64_t head = atomic_load_explicit(&stack->head, memory_order_relaxed);

    do {
        /* relaxed: published by the compare-and-swap; a late pop that reads it fails by the tag */
        atomic_store_explicit(next, (uint32_t)head, memory_order_relaxed);
        /* order: arena.push publishes the element and its blocks, pairs with arena.pop; on failure nothing is read */
    } while (!atomic_compare_exchange_weak_explicit(&stack->head, &head, head_word(head, number), memory_order_release,
                                                    memory_order_relaxed));
}

uint32_t qr_arena_stack_pop(struct qr_arena_stack *stack, char *table, size_t element_bytes)
{
    /* order: arena.pop sees the `next` that arena.push stored before it published the head */
    uint64_t head = atomic_load_explicit(&stack->head, memory_order_acquire);

    while ((uint32_t)head != 0) {
        /* relaxed: ordered by the load of the head; if the element has moved since, the tag tells */
        uint32_t next = atomic_load_explicit(next_of(table, element_bytes, (uint32_t)head), memory_order_relaxed);
        QR_STOP("arena.pop_loaded");
        /* order: arena.pop takes over the element and its blocks, pairs with arena.push */
        if (atomic_compare_exchange_weak_explicit(&stack->head, &head, head_word(head, next), memory_order_acquire,
                                                  memory_order_acquire))
            return (uint32_t)head;
    }
    return 0;
}

uint32_t qr_arena_stack_take_all(struct qr_arena_stack *stack)
{
    /* relaxed: the compare-and-swap below fails if it is stale */
    uint64_t head = atomic_load_explicit(&stack->head, memory_order_relaxed);

    while ((uint32_t)head != 0) {
        /* order: arena.pop takes over the whole list, pairs with the arena.push of each element */
        if (atomic_compare_exchange_weak_explicit(&stack->head, &head, head_word(head, 0), memory_order_acquire,
                                                  memory_order_relaxed))
            return (uint32_t)head;
    }
    return 0;
}

/* ---- Magazines -------------------------------------------------------------------------------------------------- */

struct qr_arena_magazine *qr_arena_magazine_at(struct qr_arena *arena, uint32_t number)
{
    QR_ASSERT(number > 0);
    return (struct qr_arena_magazine *)(void *)arena->magazines + (number - 1);
}

/* Makes the table's entries up to `count` and some more writable. */
static bool table_grow(struct qr_arena *arena, uint32_t count)
{
    uint32_t begin = count - count % MAGAZINE_STEP_COUNT;
    char *step = arena->magazines + (size_t)begin * sizeof(struct qr_arena_magazine);
    /* relaxed: on a stale value the compare-and-swap fails, and the caller looks again */
    uint32_t writable = atomic_load_explicit(&arena->magazines_writable, memory_order_relaxed);

    if (mprotect(step, MAGAZINE_STEP_COUNT * sizeof(struct qr_arena_magazine), PROT_READ | PROT_WRITE) != 0)
        return false;
    while (writable < begin + MAGAZINE_STEP_COUNT) {
        /* relaxed: the kernel orders a mapping's change before its caller's next step; nothing else is published */
        if (atomic_compare_exchange_weak_explicit(&arena->magazines_writable, &writable, begin + MAGAZINE_STEP_COUNT,
                                                  memory_order_relaxed, memory_order_relaxed))
            break;
    }
    return true;
}

static struct qr_arena_magazine *magazine_make(struct qr_arena *arena)
{
    /* relaxed: the compare-and-swap fails if it is stale */
    uint32_t count = atomic_load_explicit(&arena->magazine_count, memory_order_relaxed);

    for (;;) {
        if (count >= arena->magazine_limit)
            return NULL;
        /* relaxed: a stale value costs one more mprotect */
        if (count >= atomic_load_explicit(&arena->magazines_writable, memory_order_relaxed) &&
            !table_grow(arena, count))
            return NULL;
        /* relaxed: hands out a number; the entry is fresh zero memory that nobody else has seen */
        if (atomic_compare_exchange_weak_explicit(&arena->magazine_count, &count, count + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            break;
    }
    struct qr_arena_magazine *magazine = qr_arena_magazine_at(arena, count + 1);
    magazine->number = count + 1;
    return magazine;
}

struct qr_arena_magazine *qr_arena_magazine_take(struct qr_arena *arena, unsigned class_index)
{
    if (qr_alloc_must_fail())
        return NULL;
    uint32_t number = qr_arena_stack_pop(&arena->empty_magazines, arena->magazines, sizeof(struct qr_arena_magazine));
    struct qr_arena_magazine *magazine = number != 0 ? qr_arena_magazine_at(arena, number) : magazine_make(arena);

    if (magazine == NULL)
        return NULL;
    QR_ASSERT(magazine->count == 0);
    magazine->class_index = class_index;
    magazine->capacity = class_index < QR_ARENA_CLASS_COUNT ? arena->capacities[class_index] : 0;
    return magazine;
}

void qr_arena_magazine_give(struct qr_arena *arena, struct qr_arena_magazine *magazine)
{
    QR_ASSERT(magazine->count == 0);
    magazine->class_index = 0; /* no large mapping any more, see qr_arena_unreserve */
    qr_arena_stack_push(&arena->empty_magazines, arena->magazines, sizeof(*magazine), magazine->number);
}

/* ---- Depot ------------------------------------------------------------------------------------------------------ */

struct qr_arena_magazine *qr_arena_depot_take(struct qr_arena *arena, unsigned class_index)
{
    uint32_t number =
        qr_arena_stack_pop(&arena->depot[class_index], arena->magazines, sizeof(struct qr_arena_magazine));
    return number != 0 ? qr_arena_magazine_at(arena, number) : NULL;
}

uint32_t qr_arena_depot_changes(struct qr_arena *arena)
{
    uint32_t changes = 0;

    for (unsigned i = 0; i < QR_ARENA_CLASS_COUNT; i++) /* relaxed: a number to compare; no element is touched */
        changes += (uint32_t)(atomic_load_explicit(&arena->depot[i].head, memory_order_relaxed) >> 32);
    return changes;
}

void qr_arena_depot_give(struct qr_arena *arena, struct qr_arena_magazine *magazine)
{
    QR_ASSERT(magazine->count > 0);
    qr_arena_stack_push(&arena->depot[magazine->class_index], arena->magazines, sizeof(*magazine), magazine->number);
}
