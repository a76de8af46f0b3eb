# docker build -t dense-imb .
# docker run --rm --user "$(id -u)" -v "$PWD":/data dense-imb train hits --help
FROM python:3.13-slim
COPY . /src
RUN pip install --no-cache-dir "/src[export,root,parquet,nifti]"
ENV HOME=/tmp
WORKDIR /data
USER 1000
ENTRYPOINT ["dense-imb"]
