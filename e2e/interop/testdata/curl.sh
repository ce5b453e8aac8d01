# curl: one connection for the first steps, one each for the rest.
base=http://$1
step() {
	name=$1
	shift
	printf '%s ' "$name"
	curl -sS -m 30 -w '%{stderr}%{http_code}' "$@" 2>status >body
	printf '%s %s' "$(cat status)" "$(tr -d '\r' <body)"
	echo
}
step get "$base/public"
step denied "$base/denied"
step post -d hello "$base/upload"
printf hello | step chunked -H 'Transfer-Encoding: chunked' --data-binary @- "$base/upload"
step head -I -o /dev/null "$base/public"
step again "$base/public?again"
step expect -H 'Expect: 100-continue' -d hello "$base/upload"
step expect-denied -H 'Expect: 100-continue' -d hello "$base/denied"
printf 'keep-alive '
curl -sS -m 30 -o /dev/null -o /dev/null -o /dev/null -w '%{http_code}/%{num_connects} ' "$base/public" "$base/denied" "$base/public"
echo
