/* The clock as a file tells it: "+<microseconds>" shifts it, "=<microseconds>" stops it.
   Preloaded (ld.so(8)); PostgreSQL asks gettimeofday, Rust asks clock_gettime. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *path;

__attribute__((constructor)) static void find(void)
{
    const char *told = getenv("SEAWALL_TEST_CLOCK");
    path = told ? strdup(told) : "";
}

static long long adjusted(long long now_us)
{
    char text[32];
    int before = errno, file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    errno = before;
    if (length < 2)
        return now_us;
    text[length] = 0;
    long long number = strtoll(text + 1, 0, 10);
    return text[0] == '=' ? number : now_us + number;
}

int clock_gettime(clockid_t clock, struct timespec *to)
{
    int failed = syscall(SYS_clock_gettime, clock, to);
    if (!failed && clock == CLOCK_REALTIME) {
        long long us = adjusted(to->tv_sec * 1000000LL + to->tv_nsec / 1000);
        to->tv_sec = us / 1000000;
        to->tv_nsec = us % 1000000 * 1000;
    }
    return failed;
}

int gettimeofday(struct timeval *to, void *zone)
{
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return failed;
}
