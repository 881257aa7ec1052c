printf '\000\000\000\001H' >&"$o"
IFS=' ' read -r n m <&"$i" || exit 0
args=$(head -c "$m" <&"$i") code=$(head -c "$n" <&"$i")
exec 3>&- 4>&-
eval "set -- $args"
unset n m i o args
eval "unset code;$code"
