# shellcheck shell=bash
# For `check`: what runs under a sanitizer. Everything is several times slower, so deadlines are longer, and every
# process writes its reports to files of its own, because those of killed services would be lost with their logs.
# shellcheck disable=SC2154 # sanitizer is set by check
reports=$PWD/build/$sanitizer/reports
rm -rf "$reports" && mkdir -p "$reports"
export CK_TIMEOUT_MULTIPLIER=${CK_TIMEOUT_MULTIPLIER:-4}
# What is freed is not kept for long: some tests look at the memory of services.
export ASAN_OPTIONS=quarantine_size_mb=16:log_path=$reports/asan UBSAN_OPTIONS=print_stacktrace=1:log_path=$reports/ubsan
export TSAN_OPTIONS=suppressions=$PWD/test/tsan/suppressions:exitcode=0:log_path=$reports/tsan # services must end with 0
if [[ $sanitizer == tsan ]]; then
    live_suites=${live_suites:-'paths|copies|kills|provider'}
fi

no_reports() {
    local found=("$reports"/*)
    [[ -e ${found[0]} ]] || return 0
    head -n 60 "${found[@]}" >&2
    echo "$sanitizer: ${#found[@]} processes have something to report: $reports" >&2
    return 1
}
