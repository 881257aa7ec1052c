printf '\000\000\000\001H' >&3
IFS=' ' read -r n m <&3 || exit 0
args=$(head -c "$m" <&3) code=$(head -c "$n" <&3)
exec 3>&-
eval "set -- $args"
unset n m args
eval "unset code;$code"
