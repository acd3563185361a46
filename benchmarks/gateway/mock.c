/* The cheapest upstream: one thread, epoll, canned answers. A body with "stream":true gets 64 server-sent events; any
 * other gets a small chat. "seed":N is the pace: an event each N microseconds, so that they reach a proxy apart from each
 * other as tokens do; without it one per turn and connection, as fast as they go.
 * Usage: mock PORT. Bodies must carry a Content-Length; enough for a benchmark, and for nothing else. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 8192
#define ROOM (128 << 10)
#define EVENTS 64

static const char CHAT_BODY[] =
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,"
    "\"message\":{\"role\":\"assistant\",\"content\":\"Hello! How can I help you today?\"},\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9,\"total_tokens\":18}}";
static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
static const char EVENT[] =
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":"
    "[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";
static char chat[1024], event_chunk[512];
static int chat_size, event_size;

struct connection {
    char *room;
    int have, left;    /* bytes held; events still to send */
    int64_t pace, due; /* ns between two of them; when the next is due */
} connections[MAX_FD];
static int streams[MAX_FD], stream_count;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int says(const char *body, int size, const char *key, const char *value)
{
    const char *at = memmem(body, size, key, strlen(key));
    if (!at)
        return 0;
    at += strlen(key) + strspn(at + strlen(key), " ");
    return *value ? strncmp(at, value, strlen(value)) == 0 : atoi(at);
}

static void forget(int fd)
{
    for (int i = 0; i < stream_count; i++)
        if (streams[i] == fd)
            streams[i--] = streams[--stream_count];
    free(connections[fd].room);
    memset(&connections[fd], 0, sizeof connections[fd]);
    close(fd);
}

static int put(int fd, const char *data, int size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return -1;
        data += sent;
        size -= sent;
    }
    return 0;
}

/* Answer the request at the start of the room if it is whole: 1 answered, 0 not yet, -1 gone. */
static int answer(int fd)
{
    struct connection *c = &connections[fd];
    char *end = memmem(c->room, c->have, "\r\n\r\n", 4);
    if (!end)
        return 0;
    *end = 0;
    char *length = strcasestr(c->room, "content-length:");
    int size = (int)(end - c->room) + 4, body = length ? atoi(length + 15) : 0;
    *end = '\r';
    if (c->have < size + body)
        return 0;
    int stream = says(c->room + size, body, "\"stream\":", "true");
    c->pace = stream ? says(c->room + size, body, "\"seed\":", "") * 1000LL : 0;
    memmove(c->room, c->room + size + body, c->have - size - body);
    c->have -= size + body;
    if (!stream)
        return put(fd, chat, chat_size) ? -1 : 1;
    if (put(fd, STREAM_HEAD, sizeof STREAM_HEAD - 1))
        return -1;
    c->left = EVENTS;
    c->due = c->pace ? now_ns() + c->pace : 0;
    streams[stream_count++] = fd;
    return 1;
}

/* Send what is due; returns the ns until something will be, -1: nothing will. */
static int64_t advance_streams(void)
{
    int64_t now = stream_count ? now_ns() : 0, next = -1;
    for (int i = 0; i < stream_count; i++) {
        int fd = streams[i];
        struct connection *c = &connections[fd];
        int64_t rest = c->due - now;
        if (c->due && rest > 0) {
            if (next < 0 || rest < next)
                next = rest;
            continue;
        }
        int last = --c->left == 0;
        int failed = put(fd, event_chunk, event_size) || (last && put(fd, "0\r\n\r\n", 5));
        if (failed) {
            forget(fd);
            i--;
        } else if (last) {
            streams[i--] = streams[--stream_count];
        } else {
            c->due += c->pace;
            if (next < 0 || c->pace < next)
                next = c->pace;
        }
    }
    return next;
}

int main(int count, char **words)
{
    chat_size = snprintf(chat, sizeof chat, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                         sizeof CHAT_BODY - 1, CHAT_BODY);
    event_size = snprintf(event_chunk, sizeof event_chunk, "%zx\r\n%s\r\n", sizeof EVENT - 1, EVENT);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, poll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(count > 1 ? atoi(words[1]) : 0),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("mock");
        return 1;
    }
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &wanted);
    int64_t rest = -1;
    for (;;) {
        struct timespec limit = {.tv_sec = rest / 1000000000, .tv_nsec = rest % 1000000000};
        int found = epoll_pwait2(poll, ready, 256, rest < 0 ? NULL : &limit, NULL);
        for (int i = 0; i < found; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                if (fd < 0)
                    continue;
                if (fd >= MAX_FD) {
                    close(fd);
                    continue;
                }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                connections[fd].room = malloc(ROOM);
                wanted.data.fd = fd;
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted);
                continue;
            }
            struct connection *c = &connections[fd];
            ssize_t got = c->have < ROOM ? recv(fd, c->room + c->have, ROOM - c->have, 0) : 0;
            if (got <= 0) {
                forget(fd);
                continue;
            }
            c->have += got;
            int done;
            while ((done = answer(fd)) == 1)
                ;
            if (done < 0)
                forget(fd);
        }
        rest = advance_streams();
    }
}
