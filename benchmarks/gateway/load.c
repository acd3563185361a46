/* The cheapest client: one thread, epoll, CONNECTIONS keep-alive connections that send the request in FILE again as soon
 * as the answer before has ended. After SECONDS it prints: answers, median and 99th percentile of their times in µs.
 * Usage: load PORT FILE CONNECTIONS SECONDS. Answers must be 200, and sized or chunked; anything else ends it with 1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM (64 << 10)
#define LAST "0\r\n\r\n"

struct client {
    int fd, busy;
    long left;    /* bytes to come of a sized answer; -1: its head is not read; -2: it is chunked */
    char tail[5]; /* the last bytes of a chunked one */
    int64_t began;
};
static char room[ROOM], *message;
static long message_size;
static uint32_t *times;
static long answers, capacity;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what, const char *data, int size)
{
    fprintf(stderr, "load: %s %.*s\n", what, size > 300 ? 300 : size, data);
    exit(1);
}

static void ask(struct client *c)
{
    c->left = -1;
    c->busy = 1;
    memset(c->tail, 0, sizeof c->tail);
    c->began = now_ns();
    for (long at = 0; at < message_size;) {
        ssize_t sent = send(c->fd, message + at, message_size - at, MSG_NOSIGNAL);
        if (sent <= 0)
            fail("can not send:", strerror(errno), 100);
        at += sent;
    }
}

/* Whether the answer has ended with these bytes. */
static int ends(struct client *c, char *data, int size)
{
    if (c->left == -1) {
        data[size] = 0;
        char *end = strstr(data, "\r\n\r\n");
        if (!end || strncmp(data, "HTTP/1.1 200", 12))
            fail("not a whole head of a 200:", data, size);
        *end = 0;
        char *length = strcasestr(data, "\ncontent-length:");
        if (!length && !strcasestr(data, "\ntransfer-encoding: chunked"))
            fail("neither sized nor chunked:", data, size);
        c->left = length ? atol(length + 16) : -2;
        size -= end + 4 - data;
        data = end + 4;
    }
    if (c->left >= 0) {
        c->left -= size;
        return c->left <= 0;
    }
    if (size >= 5) {
        memcpy(c->tail, data + size - 5, 5);
    } else {
        memmove(c->tail, c->tail + size, 5 - size);
        memcpy(c->tail + 5 - size, data, size);
    }
    return memcmp(c->tail, LAST, 5) == 0;
}

static void note(struct client *c)
{
    if (answers == capacity) {
        capacity = capacity ? 2 * capacity : 1 << 16;
        times = realloc(times, capacity * sizeof *times);
    }
    times[answers++] = (uint32_t)((now_ns() - c->began) / 1000);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int count, char **words)
{
    if (count != 5)
        fail("usage: load PORT FILE CONNECTIONS SECONDS", "", 0);
    FILE *file = fopen(words[2], "rb");
    if (!file || fseek(file, 0, SEEK_END) || (message_size = ftell(file)) <= 0)
        fail("can not read", words[2], 300);
    rewind(file);
    message = malloc(message_size);
    if (fread(message, 1, message_size, file) != (size_t)message_size)
        fail("can not read", words[2], 300);
    int connections = atoi(words[3]), poll = epoll_create1(0), one = 1, busy = connections;
    struct client *clients = calloc(connections, sizeof *clients);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < connections; i++) {
        int fd = clients[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address))
            fail("can not connect:", strerror(errno), 100);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = &clients[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted);
    }
    int64_t until = now_ns() + (int64_t)(atof(words[4]) * 1e9);
    for (int i = 0; i < connections; i++)
        ask(&clients[i]);
    struct epoll_event ready[256];
    while (busy) {
        int found = epoll_wait(poll, ready, 256, 20000);
        if (found <= 0)
            fail("no answer for 20 s", "", 0);
        for (int i = 0; i < found; i++) {
            struct client *c = ready[i].data.ptr;
            ssize_t got = recv(c->fd, room, ROOM - 1, 0);
            if (got <= 0 || !c->busy)
                fail("the connection ended", room, 0);
            if (!ends(c, room, (int)got))
                continue;
            note(c);
            c->busy = 0;
            if (now_ns() < until)
                ask(c);
            else
                busy--;
        }
    }
    qsort(times, answers, sizeof *times, by_size);
    printf("%ld %u %u\n", answers, times[answers / 2], times[answers * 99 / 100]);
    return 0;
}
