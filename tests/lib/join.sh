# Joins the tests of several build trees into one folder that a single ctest runs and judges.
# Sourced.
#
# CMake writes each tree's tests as add_test and set_tests_properties lines, with absolute paths, one
# call a line. join_tree copies those whose name matches, with the tree's name before the test's, so
# that `asan.unit.batch` and `unit.batch` are two tests.

# join_tree OUT TREE PREFIX PATTERN: appends the tests of TREE whose name matches PATTERN (extended
# regular expression) to OUT/CTestTestfile.cmake.
join_tree() {
    local out=$1 tree=$2 prefix=$3 pattern=$4
    find "$tree" -name CTestTestfile.cmake -print0 | sort -z | xargs -0 cat |
        sed -n -E "s/^((add_test|set_tests_properties)\((\[=*\[)?)(${pattern})/\1${prefix}\4/p" \
            >>"$out/CTestTestfile.cmake"
}
