/* wire: what the stand-in engine and the load generator share: a clock, sockets, and the end of an HTTP message.
 *
 * Included by engine.c and load.c only. Knows just enough HTTP for these two programs; it is no parser for strangers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 256

static inline int64_t now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

static inline void fail(const char *what) {
  perror(what);
  exit(1);
}

/* Thousands of streams need thousands of descriptors: take all that the machine allows. */
static inline void raise_descriptor_limit(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

static inline struct sockaddr_in loopback(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static inline void send_at_once(int fd) {
  int yes = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static inline void watch(int poller, int fd, void *owner) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = owner};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
}

/* Sends everything, waiting for room; 0, or -1 when the other side is gone. */
static inline int send_all(int fd, const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      usleep(20);
      continue;
    }
    if (sent <= 0) return -1;
    bytes += sent;
    count -= sent;
  }
  return 0;
}

/* The value of a header field in a zero-terminated head, or NULL. `name` is given with its colon. */
static inline const char *field(const char *head, const char *end, const char *name) {
  size_t length = strlen(name);
  for (const char *line = strstr(head, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n"))
    if (!strncasecmp(line + 2, name, length)) return line + 2 + length;
  return NULL;
}

/* The length of the whole message at the start of a zero-terminated buffer, or 0 while it is not complete. */
static inline size_t message_bytes(const char *buffer, size_t have) {
  const char *end = strstr(buffer, "\r\n\r\n");
  if (!end) return 0;
  size_t head = end + 4 - buffer;
  const char *length = field(buffer, end, "content-length:");
  if (length) return head + atol(length) <= have ? head + atol(length) : 0;
  if (!field(buffer, end, "transfer-encoding:")) return head;
  const char *last = strstr(end + 2, "\r\n0\r\n\r\n");
  return last ? (size_t)(last + 7 - buffer) : 0;
}
