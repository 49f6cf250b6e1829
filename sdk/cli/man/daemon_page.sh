#!/bin/sh
# The manual page of a daemon, on standard output: what its --help says, and its options with what
# conf/NAME.conf says of each (a test holds that file to the table of options).
#
#   daemon_page.sh PROGRAM CONF VERSION SUMMARY
set -eu
program=$1 conf=$2 version=$3 summary=$4
name=$(basename "$program")

escaped() {
    sed -e 's/…/.../g' -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^\([.']\)/\\\\\&\1/"
}

title=$(printf '%s' "$name" | tr '[:lower:]' '[:upper:]')
printf '.TH %s 8 "" "Ferry %s" "Ferry"\n' "$title" "$version"
printf '.SH NAME\n%s \\- %s\n' "$(printf '%s' "$name" | escaped)" "$(printf '%s' "$summary" | escaped)"
printf '.SH SYNOPSIS AND ARGUMENTS\n.nf\n'
"$program" --help | escaped
printf '.fi\n.SH OPTIONS\nIn a file, by \\-\\-set, or in the environment.\n'
# A paragraph of comments, then "#key = value", all under [section].
awk '
    /^\[/ { section = substr($0, 2, index($0, "]") - 2); text = ""; next }
    /^#?[a-z_0-9]+ *=/ && section != "" {
        sub(/^#/, ""); sub(/ *=.*/, "")
        printf ".TP\n\\fB%s.%s\\fR\n%s\n", section, $0, text
        text = ""; next
    }
    /^#/ { sub(/^# ?/, ""); if ($0 != "") text = text (text == "" ? "" : "\n") $0; next }
    { text = "" }
' "$conf" | sed -e 's/-/\\-/g' -e "s/^\('\)/\\\\\&\1/"
printf '.SH SEE ALSO\n\\fBferry\\fR(1)\n'
