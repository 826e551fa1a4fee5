# What scripts that test count: sourced by them.

passed=0
failed=0
log=/dev/null # shown with a failure

result() { # result 0|1 text
    if [ "$1" -eq 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $2"
        cat "$log" 2>/dev/null
    fi
}

# The last command of a script: its exit status is the script's.
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
